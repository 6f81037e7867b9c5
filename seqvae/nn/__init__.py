"""Blocks without probability."""

from seqvae.nn.feedforward import feed_forward as feed_forward
from seqvae.nn.recurrent import SequenceGRU as SequenceGRU
from seqvae.nn.recurrent import SequenceStates as SequenceStates
from seqvae.nn.recurrent import gru_step as gru_step
