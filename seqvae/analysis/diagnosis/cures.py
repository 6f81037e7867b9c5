"""Settings that may help, told where the config of a fit has them and they can still move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from seqvae.config import from_config, override
from seqvae.config.reading import setting_of
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.types import DataSpec


def model_and_data(data: NeuralData, model: Callable[[DataSpec], Model]) -> None:
    """Do nothing: the arguments are the sections of a config that any fit has."""


@dataclass(frozen=True)
class FitConfig:
    """The settings of a fit, by dotted name.

    Attributes:
        tree: the config.
        spec: facts of the data.
        sections: a function whose arguments are the sections, each with what it asks for.
        unread: settings that there are, but that nothing reads in this fit.
        trust: whether the config may import classes from anywhere; where it may not, what they
            have for settings is not known.
    """

    tree: Mapping[str, Any]
    spec: DataSpec
    sections: Callable[..., Any] = model_and_data
    unread: frozenset[str] = frozenset()
    trust: bool = False

    def value(self, setting: str) -> Any:
        """Return what a setting is in this fit.

        Raises:
            InputError: if there is no such setting.
        """
        if any(f"{setting}.".startswith(f"{name}.") for name in self.unread):
            raise InputError(f"{setting} is not read")
        return setting_of(self.sections, self.tree, setting, trust=self.trust)

    def number(self, setting: str) -> int | float | None:
        """Return a setting that is a number; None if it is none, or not there."""
        try:
            value = self.value(setting)
        except InputError:
            return None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def accepts(self, setting: str, value: Any) -> bool:
        """Whether the fit could be begun with another value; the model is built to see."""
        try:
            tree = override(self.sections, self.tree, (setting, value), trust=self.trust)
            if setting.startswith("model."):
                asked: Any = Callable[[DataSpec], Model]
                factory = from_config(tree["model"], asked, key="model", trust=self.trust)
                with torch.random.fork_rng(devices=[]), torch.device("meta"):
                    factory(self.spec)
        except (InputError, ValueError, TypeError, RuntimeError, ArithmeticError):
            return False
        return True


class Cure(NamedTuple):
    """A change of a setting.

    Attributes:
        verb: lower or raise a number, or set a value.
        setting: its dotted name, as ``--model.latent_dim`` gives it.
        limit: of lower and raise, where there is nothing more to gain; None: none.
        start: what to set, or a value to begin with where the number is 0 or there is none.
        former: the value in the fit, once it is known.
    """

    verb: Literal["lower", "raise", "set"]
    setting: str
    limit: int | float | None = None
    start: Any = None
    former: Any = None

    def changed(self, former: Any) -> Any:
        """Return another value; None if there is none that may help."""
        if self.verb == "set":
            return self.start
        if self.verb == "raise" and former in (None, 0) and not isinstance(former, bool):
            return self.start
        if not isinstance(former, int | float) or isinstance(former, bool) or former <= 0:
            return None
        whole = isinstance(former, int)
        if self.verb == "lower":
            least = self.limit or 0
            other = (former + least) // 2 if whole else (former + least) / 2
            return other if other < former else None
        if self.limit is not None and former >= self.limit:
            return None
        other = 2 * former if self.limit is None else min(2 * former, self.limit)
        return type(former)(other)

    def fitting(self, config: FitConfig) -> Cure | None:
        """Return the cure as it is told of a fit; None if the fit has no use for it."""
        try:
            former = config.value(self.setting)
        except InputError:
            return None
        other = self.changed(former)
        if other is None or not config.accepts(self.setting, other):
            return None
        return self._replace(former=former)

    def __str__(self) -> str:
        if self.verb == "set":
            return f"set {self.setting} to {self.start}"
        if self.verb == "raise" and not self.former and self.start is not None:
            return f"set {self.setting}, e.g. to {self.start:g}"
        was = f" ({self.former:g})" if isinstance(self.former, int | float) else ""
        return f"{self.verb} {self.setting}{was}"


def lower(setting: str, *, least: int | float = 0) -> Cure:
    """Return the cure that lowers a number, down to ``least`` at most."""
    return Cure("lower", setting, limit=least)


def higher(setting: str, *, most: float | None = None, start: int | float | None = None) -> Cure:
    """Return the cure that raises a number, up to ``most``; from 0, or from none, to ``start``."""
    return Cure("raise", setting, limit=most, start=start)


def choose(setting: str, name: str) -> Cure:
    """Return the cure that sets a part to the class of a name."""
    return Cure("set", setting, start=name)
