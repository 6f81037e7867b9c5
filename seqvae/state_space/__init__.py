"""Linear state-space models as pure functions: parameters and data in, posteriors and bounds out.

A model is a ``LinearStateSpace``: linear Gaussian ``Dynamics`` and a ``LinearEmission``.
"""

from seqvae.state_space.canonical import canonical as canonical
from seqvae.state_space.dynamics import Dynamics as Dynamics
from seqvae.state_space.e_steps import Bound as Bound
from seqvae.state_space.e_steps import EStep as EStep
from seqvae.state_space.e_steps import Posterior as Posterior
from seqvae.state_space.e_steps import bound as bound
from seqvae.state_space.e_steps import exact as exact
from seqvae.state_space.e_steps import laplace as laplace
from seqvae.state_space.e_steps import variational as variational
from seqvae.state_space.emissions import GaussianEmission as GaussianEmission
from seqvae.state_space.emissions import LinearEmission as LinearEmission
from seqvae.state_space.emissions import PoissonEmission as PoissonEmission
from seqvae.state_space.initialization import from_moments as from_moments
from seqvae.state_space.initialization import from_smoothing as from_smoothing
from seqvae.state_space.m_step import LinearStateSpace as LinearStateSpace
from seqvae.state_space.m_step import maximize as maximize
