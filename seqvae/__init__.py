"""Sequential variational autoencoders for neural time series.

The names below are imported when they are first used, so that ``import seqvae`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqvae.crossvalidation import crossvalidate as crossvalidate
    from seqvae.data import NeuralData as NeuralData
    from seqvae.data import Recording as Recording
    from seqvae.errors import InputError as InputError
    from seqvae.learning import EM as EM
    from seqvae.learning import ClosedForm as ClosedForm
    from seqvae.learning import GradientLearner as GradientLearner
    from seqvae.learning import SwitchingEM as SwitchingEM
    from seqvae.models import FLDS as FLDS
    from seqvae.models import PCA as PCA
    from seqvae.models import VAE as VAE
    from seqvae.models import FactorAnalysis as FactorAnalysis
    from seqvae.models import LinearDynamics as LinearDynamics
    from seqvae.models import SequentialVAE as SequentialVAE
    from seqvae.models import SwitchingLinearDynamics as SwitchingLinearDynamics
    from seqvae.runs.run import Run as Run
    from seqvae.verbs.answers import evaluate as evaluate
    from seqvae.verbs.answers import infer as infer
    from seqvae.verbs.audit import audit as audit
    from seqvae.verbs.check import check as check
    from seqvae.verbs.fit import fit as fit

_HOMES = {
    "ClosedForm": "seqvae.learning",
    "EM": "seqvae.learning",
    "FLDS": "seqvae.models",
    "FactorAnalysis": "seqvae.models",
    "GradientLearner": "seqvae.learning",
    "InputError": "seqvae.errors",
    "LinearDynamics": "seqvae.models",
    "NeuralData": "seqvae.data",
    "PCA": "seqvae.models",
    "Recording": "seqvae.data",
    "Run": "seqvae.runs.run",
    "SequentialVAE": "seqvae.models",
    "SwitchingEM": "seqvae.learning",
    "SwitchingLinearDynamics": "seqvae.models",
    "VAE": "seqvae.models",
    "audit": "seqvae.verbs.audit",
    "check": "seqvae.verbs.check",
    "crossvalidate": "seqvae.crossvalidation",
    "evaluate": "seqvae.verbs.answers",
    "fit": "seqvae.verbs.fit",
    "infer": "seqvae.verbs.answers",
}

__all__ = [
    "EM",
    "FLDS",
    "PCA",
    "VAE",
    "ClosedForm",
    "FactorAnalysis",
    "GradientLearner",
    "InputError",
    "LinearDynamics",
    "NeuralData",
    "Recording",
    "Run",
    "SequentialVAE",
    "SwitchingEM",
    "SwitchingLinearDynamics",
    "audit",
    "check",
    "crossvalidate",
    "evaluate",
    "fit",
    "infer",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'seqvae' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
