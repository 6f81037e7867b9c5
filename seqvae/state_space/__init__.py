"""Linear state-space models as pure functions: parameters and data in, posteriors and bounds out.

A model is a ``LinearStateSpace``: linear Gaussian ``Dynamics`` and a ``LinearEmission``.
"""

from seqvae.state_space.beginning import begin_linear as begin_linear
from seqvae.state_space.beginning import linear_starts as linear_starts
from seqvae.state_space.canonical import canonical as canonical
from seqvae.state_space.continuation import continued_moments as continued_moments
from seqvae.state_space.continuation import continued_sample as continued_sample
from seqvae.state_space.coordinates import from_vector as from_vector
from seqvae.state_space.coordinates import to_vector as to_vector
from seqvae.state_space.dynamics import Dynamics as Dynamics
from seqvae.state_space.e_steps import EStep as EStep
from seqvae.state_space.e_steps import PathBound as PathBound
from seqvae.state_space.e_steps import Posterior as Posterior
from seqvae.state_space.e_steps import exact as exact
from seqvae.state_space.e_steps import laplace as laplace
from seqvae.state_space.e_steps import path_bound as path_bound
from seqvae.state_space.e_steps import variational as variational
from seqvae.state_space.emissions import GaussianEmission as GaussianEmission
from seqvae.state_space.emissions import LinearEmission as LinearEmission
from seqvae.state_space.emissions import PoissonEmission as PoissonEmission
from seqvae.state_space.evidence import laplace_evidence as laplace_evidence
from seqvae.state_space.filtering import FilteredBin as FilteredBin
from seqvae.state_space.filtering import LinearFilter as LinearFilter
from seqvae.state_space.initialization import dynamics_along as dynamics_along
from seqvae.state_space.initialization import from_moments as from_moments
from seqvae.state_space.initialization import from_path as from_path
from seqvae.state_space.initialization import from_smoothing as from_smoothing
from seqvae.state_space.initialization import readout_along as readout_along
from seqvae.state_space.initialization import shaken as shaken
from seqvae.state_space.m_step import LinearStateSpace as LinearStateSpace
from seqvae.state_space.m_step import maximize as maximize
from seqvae.state_space.particle_filter import bootstrap as bootstrap
from seqvae.state_space.particle_filter import estimate_log_evidence as estimate_log_evidence
from seqvae.state_space.particle_filter import guided as guided
from seqvae.state_space.switching import Switches as Switches
from seqvae.state_space.switching import SwitchingPenalty as SwitchingPenalty
from seqvae.state_space.switching import SwitchingStateSpace as SwitchingStateSpace
from seqvae.state_space.switching import canonical_switching as canonical_switching
from seqvae.state_space.switching import maximize_switching as maximize_switching
from seqvae.state_space.switching import seen_bins as seen_bins
from seqvae.state_space.switching_inference import SwitchingBound as SwitchingBound
from seqvae.state_space.switching_inference import SwitchingPosterior as SwitchingPosterior
from seqvae.state_space.switching_inference import infer_by_turns as infer_by_turns
from seqvae.state_space.switching_inference import infer_switching as infer_switching
from seqvae.state_space.switching_inference import switching_bound as switching_bound
from seqvae.state_space.switching_start import begin_switching as begin_switching
