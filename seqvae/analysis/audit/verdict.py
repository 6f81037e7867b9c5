"""What many departures come to: a verdict with one error rate for all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seqvae.analysis.audit.departures import Departure

LEVEL = 0.01
"""Chance of any alarm if the posterior is exact."""

WORDS = {
    "mean": "its mean is off",
    "narrow": "it is too narrow",
    "wide": "it is too wide",
    "dependence": "its entries agree with the truth one by one, and not together, as those of a "
    "diagonal posterior in place of a correlated one do",
}


class Alarm(NamedTuple):
    """A departure that chance does not explain.

    Attributes:
        place: where it was seen: ``simulated trials`` or a trial.
        departure: what was seen.
        p_value: corrected for the number of tests.
    """

    place: str
    departure: Departure
    p_value: float


class Verdict(NamedTuple):
    """Whether a posterior is the true one.

    Attributes:
        num_tests: means and variances that were tested, over all quantities and places.
        alarms: those that depart, at a family-wise level of ``LEVEL``.
    """

    num_tests: int
    alarms: tuple[Alarm, ...]

    @property
    def faults(self) -> list[str]:
        """What is wrong: ``mean``, ``narrow``, ``wide``; if nothing of these, ``dependence``."""
        seen = [alarm.departure for alarm in self.alarms if alarm.departure.kind != "density"]
        ratios = [
            each.size for each in seen if each.aspect == "variance" and each.kind == "entries"
        ]
        faults = {
            "mean": any(each.aspect == "mean" for each in seen),
            "narrow": any(ratio < 1 for ratio in ratios),
            "wide": any(ratio > 1 for ratio in ratios),
        }
        names = [name for name, is_there in faults.items() if is_there]
        return names if names or not self.alarms else ["dependence"]

    @property
    def sentence(self) -> str:
        """The verdict in words, with its error rate."""
        if not self.num_tests:
            return "verdict: nothing could be tested"
        rate = f"{self.num_tests} tests; {LEVEL:.0%} chance of a false alarm in any"
        if not self.alarms:
            return f"verdict: no fault was seen ({rate})"
        said = "; ".join(WORDS[name] for name in self.faults)
        return f"verdict: the posterior is not the true one: {said} ({rate})"


def judge(departures: Mapping[str, Sequence[Departure]]) -> Verdict:
    """Return what departs, corrected for all that was asked.

    The i-th smallest of m p-values, i from 0, is multiplied by m - i, and is never less than those
    before it (Holm 1979): whatever the dependence between the tests, an exact posterior raises any
    alarm with a chance of at most ``LEVEL``.

    Args:
        departures: of each place by its name.
    """
    rows = [(place, each) for place, group in departures.items() for each in group]
    order = np.argsort([each.p_value for _, each in rows], kind="stable")
    alarms, corrected = [], 0.0
    for rank, index in enumerate(order):
        place, each = rows[index]
        corrected = max(corrected, min(1.0, (len(rows) - rank) * each.p_value))
        if corrected <= LEVEL:
            alarms.append(Alarm(place, each, corrected))
    return Verdict(len(rows), tuple(alarms))
