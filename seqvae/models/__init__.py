"""Models: batch -> latents, factors and the distribution of the data."""

from seqvae.models.amortised import AmortisedModel as AmortisedModel
from seqvae.models.base import Model as Model
from seqvae.models.factor_analysis import PCA as PCA
from seqvae.models.factor_analysis import FactorAnalysis as FactorAnalysis
from seqvae.models.flds import FLDS as FLDS
from seqvae.models.latent_variable import LatentVariableModel as LatentVariableModel
from seqvae.models.linear_dynamics import LinearDynamics as LinearDynamics
from seqvae.models.linear_factors import LinearFactors as LinearFactors
from seqvae.models.mixture import Mixture as Mixture
from seqvae.models.nonlinear_dynamics import NonlinearDynamics as NonlinearDynamics
from seqvae.models.sequential_vae import SequentialVAE as SequentialVAE
from seqvae.models.switching_linear_dynamics import (
    SwitchingLinearDynamics as SwitchingLinearDynamics,
)
from seqvae.models.vae import VAE as VAE
