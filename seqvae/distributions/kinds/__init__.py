"""The kinds of data that an observation model may read, as values."""

from collections.abc import Iterable

import numpy as np

from seqvae.distributions.kinds.base import DataKind as DataKind
from seqvae.distributions.kinds.binary import Binary as Binary
from seqvae.distributions.kinds.counts import Counts as Counts
from seqvae.distributions.kinds.nonnegative import Nonnegative as Nonnegative
from seqvae.distributions.kinds.real import Real as Real


def kind_of(parts: Iterable[np.ndarray]) -> DataKind:
    """Return the kind of data of no stated kind: counts, if all entries are, else real.

    Args:
        parts: the activity, some trials at a time.
    """
    counts = Counts()
    return counts if all(counts.accepts(part) for part in parts) else Real()
