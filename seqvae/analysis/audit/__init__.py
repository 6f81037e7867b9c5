"""How far a model's posterior is from the truth: against sampling, and on data of its own prior."""

from seqvae.analysis.audit.calibration import Calibration as Calibration
from seqvae.analysis.audit.calibration import (
    simulation_based_calibration as simulation_based_calibration,
)
from seqvae.analysis.audit.comparison import compare as compare
from seqvae.analysis.audit.departures import Departure as Departure
from seqvae.analysis.audit.joint import JointDensity as JointDensity
from seqvae.analysis.audit.joint import what_is_seen as what_is_seen
from seqvae.analysis.audit.reference import Reference as Reference
from seqvae.analysis.audit.reference import reference_posterior as reference_posterior
from seqvae.analysis.audit.verdict import Alarm as Alarm
from seqvae.analysis.audit.verdict import Verdict as Verdict
from seqvae.analysis.audit.verdict import judge as judge
