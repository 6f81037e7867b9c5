"""The verbs: fit, infer, evaluate, check."""

from seqvae.workflow.answers import evaluate as evaluate
from seqvae.workflow.answers import infer as infer
from seqvae.workflow.answers import open_run as open_run
from seqvae.workflow.answers import without_nan as without_nan
from seqvae.workflow.fitting import fit as fit
from seqvae.workflow.recordings import check as check
