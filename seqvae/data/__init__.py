"""Data: recordings, where they come from, and the batches made of them."""

from seqvae.data.chopping import chop as chop
from seqvae.data.front import as_data as as_data
from seqvae.data.masking import CoordinatedDropout as CoordinatedDropout
from seqvae.data.neural_data import NeuralData as NeuralData
from seqvae.data.recording import Recording as Recording
