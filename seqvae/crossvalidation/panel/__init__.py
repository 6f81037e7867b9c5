"""A panel of estimators of how many latents there are, one a file, beside cross-validation."""

from seqvae.crossvalidation.panel.estimates import Estimate as Estimate
from seqvae.crossvalidation.panel.estimates import estimates as estimates
from seqvae.crossvalidation.panel.hard_threshold import HardThreshold as HardThreshold
from seqvae.crossvalidation.panel.hard_threshold import hard_threshold as hard_threshold
from seqvae.crossvalidation.panel.participation import Participation as Participation
from seqvae.crossvalidation.panel.participation import participation_ratio as participation_ratio
from seqvae.crossvalidation.panel.relevance import Relevance as Relevance
from seqvae.crossvalidation.panel.relevance import automatic_relevance as automatic_relevance
from seqvae.crossvalidation.panel.sign_flips import SignFlips as SignFlips
from seqvae.crossvalidation.panel.sign_flips import sign_flips as sign_flips
