"""Generators: the recurrent cell of the decoder."""

from seqvae.generators.base import Generator as Generator
from seqvae.generators.gru import GRU as GRU
from seqvae.generators.residual import ResidualMLP as ResidualMLP
