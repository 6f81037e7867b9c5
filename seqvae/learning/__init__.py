"""Learning: how the parameters of a model come about."""

from seqvae.learning.gradient import GradientLearner as GradientLearner
