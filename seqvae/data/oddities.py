"""Warnings of what a recording hardly should hold; it is read as it is."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
from jaxtyping import Float32

from seqvae.data.validation import are_counts, constant_neurons, names_of

FEWEST = 100
"""Entries of which one can stand out."""
FEW = 0.01
"""A share of entries that is rather a mistake than of another kind."""
LARGE, TIMES = 1000, 100
"""A count that is rather a mistake: so large, and so many times the next one."""


class OddEntries:
    """Looks for single entries that are unlike all others, some bins of a trial at a time.

    These are entries that are no counts where nearly all others are, and a count that is many
    times the next largest.
    """

    def __init__(self) -> None:
        self.num_known = self.num_active = self.num_odd = 0
        self.odd: tuple[tuple[int, ...], float] | None = None
        self.largest: tuple[tuple[int, ...], float] = ((), -1.0)
        self.next_largest = 0.0

    def add(
        self, values: Float32[np.ndarray, "time neuron"], trial: int, first_bin: int = 0
    ) -> None:
        """Look at the next values.

        Args:
            values: of some bins; NaN is missing.
            trial: in which they are.
            first_bin: of the trial that they begin with.
        """
        known = np.isfinite(values)
        whole = known & (values >= 0) & (values == np.floor(values))
        odd = known & ~whole
        self.num_known += int(known.sum())
        self.num_active += int((whole & (values > 0)).sum())
        self.num_odd += int(odd.sum())

        def place(mask: np.ndarray) -> tuple[int, ...]:
            time, neuron = np.argwhere(mask)[0]
            return trial, first_bin + int(time), int(neuron)

        if self.odd is None and odd.any():
            index = place(odd)
            self.odd = index, float(values[index[1] - first_bin, index[2]])
        highest = float(values[whole].max(initial=-1.0))
        below = float(values[whole & (values < highest)].max(initial=0.0))
        if highest > self.largest[1]:
            self.next_largest = max(self.largest[1], below, 0.0)
            self.largest = place(whole & (values == highest)), highest
        elif highest < self.largest[1]:
            self.next_largest = max(self.next_largest, highest)
        else:
            self.next_largest = max(self.next_largest, below)

    def warn(self, *, stacklevel: int) -> None:
        """Warn of them, once all has been seen."""
        index, value = self.largest
        enough = self.num_known >= FEWEST
        if enough and not self.num_odd and value >= max(LARGE, TIMES * self.next_largest):
            warnings.warn(
                f"activity{list(index)} is {value:g}, and no other count is above "
                f"{self.next_largest:g}; mark missing data by NaN",
                stacklevel=stacklevel + 1,
            )
        few = 0 < self.num_odd <= FEW * self.num_known and self.num_active > 10 * self.num_odd
        if enough and few and self.odd is not None:
            index, value = self.odd
            verb = "is" if self.num_odd == 1 else "are"
            warnings.warn(
                f"activity{list(index)} is {value:g}: {self.num_odd} of {self.num_known} entries "
                f"{verb} no count and all others are, so all are read as real numbers; mark "
                "missing data by NaN",
                stacklevel=stacklevel + 1,
            )


def warn_of_odd_entries(activity: Float32[np.ndarray, "trial time neuron"]) -> None:
    """Warn of entries that are no counts among counts, and of a count beyond all others."""
    odd = OddEntries()
    for trial, values in enumerate(activity):
        odd.add(values, trial)
    odd.warn(stacklevel=4)


def warn_of_odd_neurons(
    activity: Float32[np.ndarray, "trial time neuron"], neuron_ids: np.ndarray
) -> None:
    """Warn of neurons that are silent, or constant, and of the first pair of identical ones."""
    constant = constant_neurons(activity)
    silent = constant[~np.nan_to_num(activity[..., constant]).any((0, 1))]
    if len(constant) and not all(map(are_counts, activity)):
        warnings.warn(
            f"{len(constant)} of {activity.shape[2]} channels never change: "
            f"{names_of(constant, neuron_ids)}; a Gaussian observation neither learns nor scores "
            "them",
            stacklevel=4,
        )
    elif len(silent):
        warnings.warn(
            f"{len(silent)} of {activity.shape[2]} neurons are silent, the first is neuron "
            f"{silent[0]}",
            stacklevel=4,
        )
    seen: dict[bytes, int] = {}
    active = np.setdiff1d(np.flatnonzero(~np.isnan(activity).all(axis=(0, 1))), constant)
    for neuron in active:
        key = hashlib.sha256(activity[:, :, neuron].tobytes()).digest()
        twin = seen.setdefault(key, int(neuron))
        if twin != neuron:
            warnings.warn(
                f"neurons {twin} and {neuron} are identical in every bin; a duplicated neuron "
                "leaks what is held out",
                stacklevel=4,
            )
            return
