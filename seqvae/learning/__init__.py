"""Learning: how the parameters of a model come about."""

from seqvae.learning.closed_form import ClosedForm as ClosedForm
from seqvae.learning.default import DefaultFit as DefaultFit
from seqvae.learning.default import completed_fit as completed_fit
from seqvae.learning.default import default_fit as default_fit
from seqvae.learning.default import follows_rule as follows_rule
from seqvae.learning.em import EM as EM
from seqvae.learning.gradient import GradientLearner as GradientLearner
from seqvae.learning.learner import Learner as Learner
from seqvae.learning.learner import LearnerFactory as LearnerFactory
from seqvae.learning.learner import default_learner as default_learner
from seqvae.learning.learner import learner_of as learner_of
from seqvae.learning.switching_em import SwitchingEM as SwitchingEM
