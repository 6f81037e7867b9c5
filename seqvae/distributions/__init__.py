"""Distributions that torch lacks, and the one home of divergences."""

from seqvae.distributions.delta import Delta as Delta
from seqvae.distributions.discrete_markov_chain import DiscreteMarkovChain as DiscreteMarkovChain
from seqvae.distributions.divergence import entropy as entropy
from seqvae.distributions.divergence import gaussian_kl as gaussian_kl
from seqvae.distributions.divergence import kl as kl
from seqvae.distributions.divergence import kl_by_dimension as kl_by_dimension
from seqvae.distributions.divergence import kl_terms as kl_terms
from seqvae.distributions.divergence import log_density as log_density
from seqvae.distributions.divergence import log_ratio as log_ratio
from seqvae.distributions.divergence import (
    multivariate_gaussian_kl as multivariate_gaussian_kl,
)
from seqvae.distributions.drawing import draw as draw
from seqvae.distributions.gaussian_ar1 import GaussianAR1 as GaussianAR1
from seqvae.distributions.gaussian_markov_chain import GaussianMarkovChain as GaussianMarkovChain
from seqvae.distributions.mixed import Mixed as Mixed
from seqvae.distributions.negative_binomial import (
    NegativeBinomialLogMean as NegativeBinomialLogMean,
)
from seqvae.distributions.nonlinear_markov_chain import (
    NonlinearMarkovChain as NonlinearMarkovChain,
)
from seqvae.distributions.normal_in_units import NormalInUnits as NormalInUnits
from seqvae.distributions.path_gaussian import PathGaussian as PathGaussian
from seqvae.distributions.poisson import PoissonLogRate as PoissonLogRate
from seqvae.distributions.switching_markov_chain import ContinuedChain as ContinuedChain
from seqvae.distributions.switching_markov_chain import StateDensities as StateDensities
from seqvae.distributions.switching_markov_chain import SwitchingMarkovChain as SwitchingMarkovChain
from seqvae.distributions.zero_inflated_gamma import (
    ZeroInflatedGammaLogScale as ZeroInflatedGammaLogScale,
)
