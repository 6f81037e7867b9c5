"""Models: batch -> latents, factors and the distribution of the data."""

from seqvae.models.base import LatentVariableModel as LatentVariableModel
from seqvae.models.linear_dynamics import LinearDynamics as LinearDynamics
from seqvae.models.model import Model as Model
from seqvae.models.sequential_vae import SequentialVAE as SequentialVAE
from seqvae.models.vae import VAE as VAE
