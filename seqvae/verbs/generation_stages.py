"""What the fits of each generation of a population have in common."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from seqvae.config import override
from seqvae.config.reading import setting_of
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning import GradientLearner
from seqvae.runs import build_model
from seqvae.tuning import Choice, Interval, Space
from seqvae.tuning.population import WARMED_UP, epochs_of, ramps_of
from seqvae.verbs.fit import fit
from seqvae.verbs.searched_fit import parts_of

EPOCHS = "learner.trainer.max_epochs"
EVERY = "learner.trainer.check_val_every_n_epoch"


def stages_of(
    config: Mapping[str, Any], space: Space, data: NeuralData, *, generations: int
) -> list[Mapping[str, Any]]:
    """Return the complete config of each generation, which learns its share of the epochs.

    The warm-ups of the objective lie in the first one, which is as long as they last.

    Raises:
        InputError: for a learner without epochs, fewer epochs than generations or warm-ups last,
            or a setting that changes the shape of the weights, which are passed on.
    """
    _, learner, of_data = parts_of(config)
    epochs = _value(config, EPOCHS) if isinstance(learner, GradientLearner) else None
    if epochs is None:
        raise InputError(
            f"search 'pbt' divides {EPOCHS} into generations, which "
            f"{type(learner).__name__} has not here; give a GradientLearner max_epochs"
        )
    if epochs < generations:
        raise InputError(
            f"generations must be at most {EPOCHS}, which is {epochs}, got {generations}"
        )
    for name in changes_shapes(config, space, data):
        raise InputError(
            f"space.{name} changes the names or shapes of the weights, which the members of a "
            "population pass on; leave it out, or search by 'tpe'"
        )
    every = min(_value(config, EVERY) or 1, math.ceil(epochs / generations))
    objective = _value(config, "model.objective")
    ramps = 0 if objective is None else ramps_of(objective["init_args"], space)
    first = math.ceil(ramps / math.ceil(len(data.trials("train")) / of_data["batch_size"]))
    share = math.ceil(epochs / generations)
    if first > epochs:
        raise InputError(
            f"{EPOCHS} is {epochs}, and the warm-ups of model.objective, such as beta_steps, last "
            f"{first} epochs here; raise it, or shorten them"
        )
    if first > share:
        warnings.warn(
            f"the first generation learns {first} epochs, as long as the warm-ups last (of "
            f"model.objective, such as beta_steps; fewer shorten it), the others {share}",
            stacklevel=4,
        )
    stages = []
    for generation in range(generations):
        length = epochs_of(
            generation, epochs=epochs, generations=generations, every=every, first=first
        )
        changes = {EPOCHS: length, EVERY: every}
        if generation and objective is not None:
            changes |= WARMED_UP
        stage = config
        for change in changes.items():
            stage = override(fit, stage, change, trust=True)
        stages.append(stage)
    return stages


def _value(config: Mapping[str, Any], name: str) -> Any:
    try:
        return setting_of(fit, config, name, trust=True)
    except InputError:
        return None


def changes_shapes(
    config: Mapping[str, Any], space: Mapping[str, Interval | Choice], data: NeuralData
) -> list[str]:
    """Return the settings by which weights have other names or shapes, as some sizes have.

    Compared are the extremes, or all choices, and what the setting is.
    """
    former, found = _shapes(config, data), []
    for name, values in space.items():
        extremes = values.values if isinstance(values, Choice) else (values.low, values.high)
        others = (override(fit, config, (name, value), trust=True) for value in extremes)
        if any(_shapes(other, data) != former for other in others):
            found.append(name)
    return found


def _shapes(config: Mapping[str, Any], data: NeuralData) -> dict[str, Any]:
    model, _, _ = parts_of(config)
    weights = build_model(model, data.spec).state_dict()
    return {name: tensor.shape for name, tensor in weights.items()}
