"""Scores of whole data sets: sums in float64, divided once at the end."""

from seqvae.scores.decoding import behavior_r2 as behavior_r2
from seqvae.scores.metrics import R2 as R2
from seqvae.scores.metrics import AggregatePosterior as AggregatePosterior
from seqvae.scores.metrics import BitsPerSpike as BitsPerSpike
from seqvae.scores.metrics import LatentUse as LatentUse
from seqvae.scores.metrics import LogLikelihood as LogLikelihood
from seqvae.scores.metrics import MeanPerTrial as MeanPerTrial
from seqvae.scores.metrics import SumMetric as SumMetric
