"""Population-based training: fits that do well go on, and lend weights and settings to others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seqvae.tuning.proposals import proposals, rounded
from seqvae.tuning.rounds import Task
from seqvae.tuning.space import Choice, Interval, Space
from seqvae.tuning.study import Study

LEAST_FACTOR, LARGEST_FACTOR = 0.8, 1.2
"""What a setting that is searched by ratios is multiplied by."""

STEP = 0.1
"""How far any other number moves at most, as a share of its interval."""

REDRAWN = 0.2
"""How often one of some choices is drawn anew."""


def evolution(
    study: Study, space: Space, *, population: int, generations: int
) -> Iterator[list[Task]]:
    """Give what each generation is still to fit, a function of the one before and of the seed.

    The first generation has the settings as they are and others drawn at random. In each later one
    every member meets another, drawn at random: the one of the lower score takes weights and
    settings of the other, and changes these a little (binary tournament; Jaderberg et al. 2017,
    arXiv:1711.09846; Keshtkaran et al. 2022 for LFADS). The better one goes on as it is.

    Args:
        study: what is known.
        space: the settings, and what each may be.
        population: members of a generation.
        generations: of them.
    """
    seed = study.facts["seed"]
    drawn = proposals(space, [], number=1, count=population - 1, search="random", seed=seed)
    tasks = [Task(0, {}), *(Task(place, one) for place, one in enumerate(drawn, start=1))]
    for generation in range(generations):
        if generation:
            tasks = _next(study, space, generation, population, seed)
        if missing := [task for task in tasks if task.number not in study.records]:
            yield missing


def _next(study: Study, space: Space, generation: int, population: int, seed: int) -> list[Task]:
    first = generation * population
    former = range(first - population, first)
    scores = {number: study.records[number].score for number in former}
    known = {n: -math.inf if score is None else score for n, score in scores.items()}
    best = max(known, key=known.__getitem__)
    tasks = []
    for place, own in enumerate(former):
        generator = np.random.default_rng([seed, generation, place])
        other = former[(place + generator.integers(1, population)) % population]
        parent = other if known[other] > known[own] else own
        if math.isinf(known[parent]):  # neither could be fitted
            parent = best
        settings = study.settings_of(parent)
        if parent != own:
            settings = {n: changed(space[n], settings[n], generator) for n in space}
        tasks.append(Task(first + place, dict(settings), parent, generation))
    return tasks


def changed(values: Interval | Choice, value: Any, generator: np.random.Generator) -> Any:
    """Return a value near another, within its bounds.

    By a factor of 0.8 to 1.2, uniform in its logarithm, where ratios are searched; by a tenth of
    the interval at most elsewhere; one of some choices is drawn anew one time in five.
    """
    if isinstance(values, Choice):
        anew = values.values[int(generator.integers(len(values.values)))]
        return anew if generator.random() < REDRAWN else value
    if values.log:
        power = generator.uniform(math.log(LEAST_FACTOR), math.log(LARGEST_FACTOR))
        moved = value * math.exp(power)
    else:
        moved = value + generator.uniform(-STEP, STEP) * (values.high - values.low)
    return rounded(values, min(max(moved, values.low), values.high))


def epochs_of(generation: int, *, epochs: int, generations: int, every: int, first: int) -> int:
    """Return how many epochs a generation learns, whole validations among them.

    Args:
        generation: which.
        epochs: that each member learns in all.
        generations: into which these are divided.
        every: epochs from one validation to the next.
        first: epochs that the first generation needs at least, as its warm-ups last.
    """
    wanted = max(math.ceil(epochs / generations), first if generation == 0 else 1)
    return math.ceil(wanted / every) * every


def ramps_of(objective: Mapping[str, Any], space: Space) -> int:
    """Return the optimiser step at which the last warm-up of an objective has ended.

    A weight that is 0, and is not searched, has none.
    """
    ends = [
        objective[f"{name}_start"] + objective[f"{name}_steps"]
        for name in ("beta", "recurrent_l2")
        if objective[name] or f"model.objective.{name}" in space
    ]
    return max(*ends, objective["kl_target_steps"], 0)


WARMED_UP = {
    f"model.objective.{name}": 0
    for name in (
        "beta_start", "beta_steps", "recurrent_l2_start", "recurrent_l2_steps", "kl_target_steps",
    )
}  # fmt: skip
"""Settings of an objective whose warm-ups are over."""
