"""The verbs: fit, infer, evaluate, audit, check."""

from seqvae.verbs.answers import evaluate as evaluate
from seqvae.verbs.answers import infer as infer
from seqvae.verbs.answers import open_run as open_run
from seqvae.verbs.answers import without_nan as without_nan
from seqvae.verbs.audit import audit as audit
from seqvae.verbs.check import check as check
from seqvae.verbs.fit import fit as fit
