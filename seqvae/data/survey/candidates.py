"""The entries of a file as they may be parts of a recording, with all that tells which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seqvae.data.containers import plain_labels
from seqvae.data.sources.concatenated import period_of
from seqvae.data.sources.dims import Block
from seqvae.data.sources.holdings import Holdings
from seqvae.data.sources.leaves import Cells, Leaf, alike
from seqvae.data.survey.facts import Facts, facts_of
from seqvae.data.survey.words import says
from seqvae.errors import InputError

_FEWEST_ALIKE = 3
_MOST_NUMBERS = 10_000_000
_SPLITS = ("train", "valid", "val", "test")


@dataclass(frozen=True)
class Candidate:
    """An entry.

    Attributes:
        name: of the entry; ``trial_*/spikes`` stands for one of each trial.
        block: its axes and arrays.
        is_matlab: whether MATLAB's numbers are its own, all of them fractions.
    """

    name: str
    block: Block
    is_matlab: bool

    @cached_property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return any(leaf.is_text for _, leaf in self.block.leaves[:1])

    @cached_property
    def facts(self) -> Facts:
        """What its numbers are like."""
        return facts_of(self.block)

    @cached_property
    def labels(self) -> np.ndarray:
        """Its values in one row."""
        return plain_labels(self.name, self.block.vector())

    @cached_property
    def smoothness(self) -> tuple[float, ...]:
        """How little it changes along each axis: 1 - mean square step / twice its variance."""
        (_, leaf), *cells = self.block.leaves
        if cells or not 0 < leaf.size <= _MOST_NUMBERS:
            return tuple(0.0 for _ in self.sizes)
        values = self.block.array(leaf).astype(np.float64)
        values = np.where(np.isfinite(values), values, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers near the largest
            values = values - values.mean()
            spread = 2 * np.square(values).mean()
            steps = [
                np.square(np.diff(values, axis=axis)).mean() if size > 1 else np.inf
                for axis, size in enumerate(values.shape)
            ]
            shares = [1 - step / spread if spread > 0 else 0.0 for step in steps]
        return tuple(float(share) if np.isfinite(share) else 0.0 for share in shares)

    @cached_property
    def periods(self) -> tuple[int | None, ...]:
        """The length of trials that stand one after another along each axis, where that is told."""
        (_, leaf), *cells = self.block.leaves
        is_plain = not cells and len(self.sizes) == 2 and 0 < leaf.size <= _MOST_NUMBERS
        if not is_plain or self.facts.are_whole or self.facts.num_missing:
            return tuple(None for _ in self.sizes)
        values = self.block.array(leaf).astype(np.float64)
        return period_of(values), period_of(values.T)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Of its axes."""
        return self.block.sizes

    @property
    def is_row(self) -> bool:
        """Whether it is one row of labels."""
        return len(self.sizes) == 1 and self.sizes[0] is not None

    @property
    def is_series(self) -> bool:
        """Whether it has two axes or three, and holds numbers."""
        return len(self.sizes) in (2, 3) and not self.is_text

    @cached_property
    def are_times(self) -> bool:
        """Whether it is cells of vectors that rise, of unequal lengths."""
        return self.block.are_vectors and self.sizes[-1] is None and self.facts.are_rising


def candidates(holdings: Holdings) -> dict[str, Candidate]:
    """Return what may be parts, by name; what has no plain axes is left out."""
    chosen: dict[str, Candidate] = {}
    for name, value in _joined(holdings).items():
        try:
            block = Block.of(value, drops_ones=holdings.is_matlab)
        except InputError:
            continue
        chosen[name] = Candidate(name, block, holdings.is_matlab)
    return chosen


def _joined(holdings: Holdings) -> Mapping[str, Leaf | Cells]:
    """Join entries that differ by a number, as those of a group for each trial."""
    joined: dict[str, Leaf | Cells] = {}
    patterns: dict[str, list[str]] = {}
    for name in holdings.entries:
        group, slash, rest = name.rpartition("/")
        pattern = re.sub(r"\d+", "*", group, count=1) + slash + rest
        if holdings.is_matlab or not slash or pattern == name:
            pattern = re.sub(r"\d+$", "*", name) if re.search(r"\D\d+$", name) else name
        patterns.setdefault(name if holdings.is_matlab else pattern, []).append(name)
    for pattern, names in patterns.items():
        if "*" in pattern and len(names) >= _FEWEST_ALIKE:
            order = alike(names, pattern)
            joined[pattern] = Cells((len(order),), tuple(holdings.entries[n] for n in order))
        else:
            joined.update({name: holdings.entries[name] for name in names})
    return joined


def split_patterns(entries: Mapping[str, Candidate]) -> dict[str, dict[str, str]]:
    """Return entries that differ by the word of a split: pattern to split to name."""
    patterns: dict[str, dict[str, str]] = {}
    for name in entries:
        for word in _SPLITS:
            match = re.search(rf"(?<![a-z]){word}(?![a-z])", name)
            if match:
                pattern = name[: match.start()] + "{split}" + name[match.end() :]
                patterns.setdefault(pattern, {})["valid" if word == "val" else word] = name
                break
    return {
        pattern: names for pattern, names in patterns.items() if {"train", "valid"} <= set(names)
    }


def activity_score(candidate: Candidate) -> float:
    """Return how much an entry looks like the activity; below zero: not at all."""
    if candidate.is_text or not (candidate.is_series or candidate.are_times):
        return -1.0
    name = candidate.name
    score = 4.0 * min(1, says(name, "activity")) + 2.0 * min(1, says(name, "activity perhaps"))
    if says(name, "behavior") or says(name, "inputs"):
        score -= 4.0
    if candidate.are_times:
        return score + 1.0 + says(name, "times")
    shape = [size for size in candidate.sizes if size is not None]
    if min(shape) == 0 or candidate.facts.num_entries == candidate.facts.num_missing:
        return -1.0
    score += 2.0 * candidate.facts.are_counts + 1.0 * (len(candidate.sizes) == 3)
    return score - 2.0 * (candidate.facts.num_entries < 50)
