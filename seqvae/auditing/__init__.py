"""How far a model's posterior is from the truth: against sampling, and on data of its own prior."""

from seqvae.auditing.calibration import Calibration as Calibration
from seqvae.auditing.calibration import (
    simulation_based_calibration as simulation_based_calibration,
)
from seqvae.auditing.comparison import compare as compare
from seqvae.auditing.joint import JointDensity as JointDensity
from seqvae.auditing.joint import what_is_seen as what_is_seen
from seqvae.auditing.reference import Reference as Reference
from seqvae.auditing.reference import reference_posterior as reference_posterior
from seqvae.auditing.verb import audit as audit
