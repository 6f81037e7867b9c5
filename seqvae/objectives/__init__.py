"""The objective: bounds on the evidence, their gradients, and the settings of training."""

from seqvae.objectives.bounds import Bound as Bound
from seqvae.objectives.bounds import bound as bound
from seqvae.objectives.bounds import evidence_minus_kl as evidence_minus_kl
from seqvae.objectives.bounds import has_elbo as has_elbo
from seqvae.objectives.bounds import importance_weighted_bound as importance_weighted_bound
from seqvae.objectives.bounds import joint_plus_entropy as joint_plus_entropy
from seqvae.objectives.bounds import log_likelihood as log_likelihood
from seqvae.objectives.bounds import log_weights as log_weights
from seqvae.objectives.bounds import weighted_log_prob as weighted_log_prob
from seqvae.objectives.loss import Loss as Loss
from seqvae.objectives.loss import training_loss as training_loss
from seqvae.objectives.objective import Objective as Objective
from seqvae.objectives.objective import ramp as ramp
