"""Models: batch -> latents, factors and the distribution of the data."""

from seqvae.models.base import LatentVariableModel as LatentVariableModel
from seqvae.models.sequential_vae import SequentialVAE as SequentialVAE
from seqvae.models.vae import VAE as VAE
