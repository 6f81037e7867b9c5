"""The family of observation models: factors -> p(x | factors)."""

from seqvae.observations.base import Observation as Observation
from seqvae.observations.bernoulli import Bernoulli as Bernoulli
from seqvae.observations.gaussian import Gaussian as Gaussian
from seqvae.observations.generalized_linear import GeneralizedLinear as GeneralizedLinear
from seqvae.observations.generalized_linear import LinkResponse as LinkResponse
from seqvae.observations.negative_binomial import NegativeBinomial as NegativeBinomial
from seqvae.observations.poisson import Poisson as Poisson
from seqvae.observations.zero_inflated_gamma import ZeroInflatedGamma as ZeroInflatedGamma
