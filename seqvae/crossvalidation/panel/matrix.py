"""A recording as the matrix that the estimators of a panel take."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from seqvae.data.recording import Recording
from seqvae.distributions.kinds.real import LEAST_VARIATION
from seqvae.errors import InputError

LEAST_ROWS = 10
BLOCKS = 20
"""Of a long recording, which stand for trials."""


def standardized_rows(
    activity: Float[np.ndarray, "trial time neuron"], *, counts: bool
) -> Float[np.ndarray, "row column"]:
    """Return a row for each bin in which all neurons are seen, columns of mean 0 and variance 1.

    Counts are taken by their square root, whose variance depends less on the rate; at low rates,
    where that is 0 or 1, it is the standardising that makes neurons alike. Neurons that do not vary
    are left out. Rows are in the order of trials and bins.

    Args:
        activity: NaN = missing.
        counts: whether to take square roots.

    Raises:
        InputError: with fewer than ten rows, or two neurons that vary.
    """
    rows = activity[np.isfinite(activity).all(axis=2)].astype(np.float64)
    if len(rows) < LEAST_ROWS:
        raise InputError(
            f"panel: all neurons are observed together in {len(rows)} bins only, and at least "
            f"{LEAST_ROWS} are needed; leave panel out"
        )
    rows = np.sqrt(rows) if counts else rows
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    varies = std > LEAST_VARIATION * np.abs(mean)
    if varies.sum() < 2:
        raise InputError("panel: fewer than two neurons vary; leave panel out")
    return (rows[:, varies] - mean[varies]) / std[varies]


def check_panel(recording: Recording) -> None:
    """Refuse, before anything is learned, what no panel can be asked of.

    Raises:
        InputError: as ``standardized_rows``.
    """
    standardized_rows(recording.read(), counts=False)


def trials_of(
    activity: Float[np.ndarray, "trial time neuron"], *, counts: bool
) -> Float[np.ndarray, "block bin column"]:
    """Return what a participation ratio is of: counts, or values in units of their deviation.

    One long recording is cut into blocks, which stand for trials.

    Args:
        activity: NaN = missing.
        counts: whether to leave it in its units.
    """
    if len(activity) == 1 and activity.shape[1] >= 2 * BLOCKS:
        length = activity.shape[1] // BLOCKS
        activity = activity[0, : length * BLOCKS].reshape(BLOCKS, length, activity.shape[2])
    if counts:
        return activity
    std = activity[np.isfinite(activity).all(axis=2)].std(axis=0, dtype=np.float64)
    return activity[..., std > 0] / std[std > 0]
