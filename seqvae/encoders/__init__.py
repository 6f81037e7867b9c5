"""Encoders: x -> q(z | x)."""

from seqvae.encoders.base import Encoder as Encoder
from seqvae.encoders.free import FreeGaussian as FreeGaussian
from seqvae.encoders.gru import BinGRU as BinGRU
from seqvae.encoders.gru import TrialGRU as TrialGRU
from seqvae.encoders.heads import DeltaHead as DeltaHead
from seqvae.encoders.heads import FullNormalHead as FullNormalHead
from seqvae.encoders.heads import Head as Head
from seqvae.encoders.heads import LowRankNormalHead as LowRankNormalHead
from seqvae.encoders.heads import NormalHead as NormalHead
from seqvae.encoders.information import Information as Information
from seqvae.encoders.information import InformationEncoder as InformationEncoder
from seqvae.encoders.information import InformationMLP as InformationMLP
from seqvae.encoders.mlp import MLP as MLP
from seqvae.encoders.read_in import Direct as Direct
from seqvae.encoders.read_in import LinearReadIn as LinearReadIn
from seqvae.encoders.read_in import ReadIn as ReadIn
