"""Models: batch -> latents, factors and the distribution of the data."""

from seqvae.models.amortised import AmortisedModel as AmortisedModel
from seqvae.models.base import LatentVariableModel as LatentVariableModel
from seqvae.models.factor_analysis import PCA as PCA
from seqvae.models.factor_analysis import FactorAnalysis as FactorAnalysis
from seqvae.models.flds import FLDS as FLDS
from seqvae.models.gradient_noise import GradientNoise as GradientNoise
from seqvae.models.gradient_noise import measure_gradient_noise as measure_gradient_noise
from seqvae.models.linear_dynamics import LinearDynamics as LinearDynamics
from seqvae.models.linear_factors import LinearFactors as LinearFactors
from seqvae.models.model import Model as Model
from seqvae.models.refinement import Refinement as Refinement
from seqvae.models.refinement import refine as refine
from seqvae.models.sequential_vae import SequentialVAE as SequentialVAE
from seqvae.models.switching_linear_dynamics import (
    SwitchingLinearDynamics as SwitchingLinearDynamics,
)
from seqvae.models.vae import VAE as VAE
