"""What a search may vary: settings by their dotted names, each with an interval or choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, TypeAlias

from seqvae.config.reading import setting_of
from seqvae.errors import InputError, nearest

SECTIONS = ("model", "learner", "data")
OF_DATA = ("batch_size", "coordinated_dropout")
"""Settings of the data that change what is learned from, and nothing of what is scored."""


@dataclass(frozen=True)
class Interval:
    """Numbers between two, both of them included; whole ones if both are whole.

    Attributes:
        low: the least.
        high: the largest.
        log: whether it is searched by ratios rather than by differences.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def like(self, value: Any) -> Interval:
        """Return these of the kind of a value: of a fraction also what lies between 0 and 1."""
        if isinstance(value, float):
            return replace(self, low=float(self.low), high=float(self.high))
        return self

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        is_number = isinstance(value, Integral if self.is_whole else Real)
        return is_number and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """Some values, in no order.

    Attributes:
        values: the values, as a config spells them.
    """

    values: Sequence[Any]

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        return value in self.values


Space: TypeAlias = Mapping[str, Interval | Choice]

BY_GRADIENTS: dict[str, Interval | Choice] = {
    "model.dropout": Interval(0.0, 0.6),
    "model.optimizer.lr": Interval(1e-3, 2e-2, log=True),
    "model.optimizer.weight_decay": Interval(1e-3, 2.0, log=True),
    "data.coordinated_dropout.rate": Interval(0.05, 0.6),
}
"""What is searched where a model has it; of coordinated dropout the rate, where there is one."""

WHILE_LEARNING: dict[str, Interval | Choice] = {
    "model.dropout": Interval(0.01, 0.6),  # of a layer that is there throughout
    "model.objective.beta": Interval(0.1, 2.0, log=True),
}
"""What may change while a model learns; the bound that scores it has beta = 1."""

LARGEST_DIM = 32
SIZES = ("model.latent_dim", "model.factor_dim")


def default_space(
    function: Callable[..., Any],
    config: Mapping[str, Any],
    *,
    num_heldin: int,
    adapts: bool = False,
) -> dict[str, Interval | Choice]:
    """Return what is searched if nothing is said: regularisation and step size, else the size.

    Dropout, learning rate, weight decay and the rate of coordinated dropout, where model and data
    have them (Keshtkaran et al. 2022 search these for LFADS); for a model without any, such as
    linear dynamics learned by EM, the number of its latents.

    Args:
        function: whose arguments the config holds.
        config: the complete config tree.
        num_heldin: neurons that inference sees; no size exceeds them.
        adapts: whether settings change while a model learns, so that the weight of the KL, which
            would else be another model's, may vary, and a size may not.
    """
    space: dict[str, Interval | Choice] = {
        name: values
        for name, values in (BY_GRADIENTS | (WHILE_LEARNING if adapts else {})).items()
        if _value(function, config, name) is not None
    }
    if space or adapts:
        return space
    most = min(LARGEST_DIM, num_heldin)
    return {
        name: Interval(1, most, log=True)
        for name in SIZES
        if most > 1 and _value(function, config, name) is not None
    }


def _value(function: Callable[..., Any], config: Mapping[str, Any], name: str) -> Any:
    if name.startswith("data.") and config["data"]["init_args"].get(name.split(".")[1]) is None:
        return None
    try:
        return setting_of(function, config, name)
    except InputError:
        return None


def as_space(space: Mapping[str, Any]) -> dict[str, Interval | Choice]:
    """Read a space as YAML spells it: ``{low: 0.1, high: 1, log: true}``, or a list of choices.

    Raises:
        InputError: naming the setting, for a name outside of ``model``, ``learner`` and ``data``,
            for bounds that are none, and for a choice of fewer than two.
    """
    return {name: _as_values(name, values) for name, values in space.items()}


def _as_values(name: str, values: Any) -> Interval | Choice:
    key = f"space.{name}"
    parts = name.split(".")
    if parts[0] not in SECTIONS or len(parts) < 2:
        raise InputError(
            f"{key} is no setting: begin with model., learner. or data., as in model.dropout"
        )
    if parts[0] == "data" and parts[1] not in OF_DATA:
        raise InputError(
            f"{key} would change what the fits are scored on; of the data only "
            f"{' and '.join(OF_DATA)} can be searched"
        )
    if isinstance(values, Interval | Choice):
        return _checked(key, values)
    if isinstance(values, Mapping):
        for word in values:
            if word not in ("low", "high", "log"):
                raise InputError(f"{key}.{word} is unknown{nearest(word, ('low', 'high', 'log'))}")
        if "low" not in values or "high" not in values:
            raise InputError(f"{key} needs low and high, got {dict(values)!r}")
        low, high = (_number(f"{key}.{word}", values[word]) for word in ("low", "high"))
        return _checked(key, Interval(low, high, log=bool(values.get("log", False))))
    if isinstance(values, Sequence) and not isinstance(values, str):
        return _checked(key, Choice(list(values)))
    raise InputError(f"{key} must be {{low: ..., high: ...}} or a list of choices, got {values!r}")


def _number(key: str, value: Any) -> int | float:
    """Return a number, which YAML takes for a text if it is written like 1e-4."""
    number = value
    if isinstance(value, str):
        with suppress(ValueError):
            number = float(value)
    if not isinstance(number, Real) or isinstance(number, bool) or not math.isfinite(number):
        raise InputError(f"{key} must be a number, got {value!r}")
    return int(number) if isinstance(number, Integral) else float(number)


def _checked(key: str, values: Interval | Choice) -> Interval | Choice:
    if isinstance(values, Choice):
        if len(values.values) < 2:
            raise InputError(f"{key} needs two choices or more, got {list(values.values)!r}")
        return values
    if not values.low < values.high:
        raise InputError(f"{key}.low must be below high, got {values.low} and {values.high}")
    if values.log and values.low <= 0:
        raise InputError(f"{key}.low must be positive where log is true, got {values.low}")
    return values
