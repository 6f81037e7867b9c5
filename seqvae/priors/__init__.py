"""The family of priors: shape -> p(z)."""

from seqvae.priors.ar1 import AR1 as AR1
from seqvae.priors.base import Prior as Prior
from seqvae.priors.normal import IIDNormal as IIDNormal
from seqvae.priors.normal import LearnableNormal as LearnableNormal
from seqvae.priors.normal import StandardNormal as StandardNormal
