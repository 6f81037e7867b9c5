from . import plotting as plotting
from .data import NeuralData as NeuralData
from .data import Recording as Recording
from .data.sources import Arrays as Arrays
from .errors import InputError as InputError
from .learning import EM as EM
from .learning import ClosedForm as ClosedForm
from .learning import GradientLearner as GradientLearner
from .learning import SwitchingEM as SwitchingEM
from .models import FLDS as FLDS
from .models import PCA as PCA
from .models import VAE as VAE
from .models import FactorAnalysis as FactorAnalysis
from .models import LinearDynamics as LinearDynamics
from .models import NonlinearDynamics as NonlinearDynamics
from .models import SequentialVAE as SequentialVAE
from .models import SwitchingLinearDynamics as SwitchingLinearDynamics
from .runs import Ensemble as Ensemble
from .runs import Run as Run

# The verbs, in the order in which the help lists them: seqvae/verbs/table.py reads these lines.
from .verbs.fit import fit as fit  # isort: split

from .verbs.infer import infer as infer  # isort: split

from .verbs.evaluate import evaluate as evaluate  # isort: split

from .verbs.plot import plot as plot  # isort: split

from .verbs.report import report as report  # isort: split

from .verbs.export import export as export  # isort: split

from .verbs.ensemble import ensemble as ensemble  # isort: split

from .verbs.add_session import add_session as add_session  # isort: split

from .verbs.audit import audit as audit  # isort: split

from .verbs.crossvalidate import crossvalidate as crossvalidate  # isort: split

from .verbs.tune import tune as tune  # isort: split

from .verbs.leakcheck import leakcheck as leakcheck  # isort: split

from .verbs.check import check as check  # isort: split

from .verbs.convert import convert as convert  # isort: split

__version__: str
