"""What depends on the kind of data: what is allowed, its null model, its GLM, its score."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from seqvae.errors import InputError
from seqvae.types import Moments


@dataclass(frozen=True)
class DataKind(ABC):
    """A kind of data, such as counts: a small value that is compared by equality.

    Every observation model states the kind that it reads. Data of one kind have one null model,
    one baseline distribution and one unit of the score, so models of the same kind compare.

    Raises:
        InputError: for a kind that leaves something open, as soon as it is made.
    """

    def __new__(cls, *_: Any, **__: Any) -> DataKind:
        """Refuse what leaves a method open."""
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(cls.__abstractmethods__))
            raise InputError(f"{cls.__name__} is no whole kind of data; it must define {missing}")
        return super().__new__(cls)

    # What the data may be

    @property
    @abstractmethod
    def name(self) -> str:
        """The word for it in messages and files."""

    @property
    @abstractmethod
    def need(self) -> str:
        """What an entry must be, in words: "the observation model needs ..."."""

    @property
    @abstractmethod
    def cure(self) -> str:
        """What to do about data that are not."""

    @abstractmethod
    def outside(self, activity: np.ndarray) -> Bool[np.ndarray, "*shape"]:
        """Return where an entry is no such data; a missing one (NaN) is nowhere outside."""

    def accepts(self, activity: np.ndarray) -> bool:
        """Return whether all entries are such data, or missing."""
        return not self.outside(activity).any()

    def check(self, activity: np.ndarray, *, first: int = 0) -> None:
        """Refuse activity (trial, time, neuron) that is not such data.

        Args:
            activity: of some trials.
            first: index of their first in the recording.

        Raises:
            InputError: naming the first offending [trial, time, neuron].
        """
        wrong = self.outside(activity)
        refuse(activity, wrong, need=self.need, cure=self.cure, first=first)

    # How it is scored

    @property
    @abstractmethod
    def counts_events(self) -> bool:
        """Whether an entry is a number of events: then there are rates, and bits per spike."""

    @property
    def score_unit(self) -> str:
        """The unit in which models are compared; ``log_likelihood`` is in nats per entry."""
        return "bits_per_spike" if self.counts_events else "log_likelihood"

    @property
    def mean_range(self) -> tuple[float, float]:
        """The least and the largest mean at which the likelihood of any data is finite."""
        return -math.inf, math.inf

    def inside_support(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Keep means where the likelihood of any data is finite."""
        return np.clip(mean, *self.mean_range)

    def clamp(self, mean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Keep means where the likelihood of any data is finite."""
        return mean.clamp(*self.mean_range)

    # What training moments alone say

    @abstractmethod
    def is_known(self, moments: Moments) -> Bool[Tensor, " neuron"]:
        """Return which neurons have shown in training what the null model must know of them."""

    @abstractmethod
    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        moments: Moments,
        *,
        spread: Float[Tensor, " neuron"],
    ) -> Distribution:
        """Return the distribution that a mean stands for which does not come from a likelihood.

        Args:
            mean: expected activity, such as a baseline predicts; within ``mean_range``.
            moments: of each neuron in training.
            spread: standard deviation of the training entries about such means.
        """

    # The GLM with canonical link

    @abstractmethod
    def link(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the predictor eta of a mean."""

    @abstractmethod
    def log_partition(
        self, predictor: Float[np.ndarray, "*shape"]
    ) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
        """Return A(eta) of the exponential family and its derivative, the mean."""

    @abstractmethod
    def variance(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the order of the variance at a mean, by which a regression is scaled."""

    @abstractmethod
    def log_likelihood(
        self,
        target: Float[np.ndarray, "*leading neuron"],
        mean: Float[np.ndarray, "*leading neuron"],
        *,
        unit: Float[np.ndarray, " neuron"],
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return the log-likelihood of each entry up to terms without ``mean``."""

    def features(
        self, smoothed: Float[np.ndarray, "*leading neuron"], unit: Float[np.ndarray, " neuron"]
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return smoothed activity as the regression reads it, free of the unit of a channel."""
        return smoothed / unit

    def origin(self, moments: Moments) -> Float[Tensor, " neuron"]:
        """Return where the scale of each channel begins; 0 unless any number may occur."""
        return torch.zeros_like(moments.mean)

    def unit(self, moments: Moments) -> Float[Tensor, " neuron"]:
        """Return the unit of each channel; 1 where the data have none."""
        return torch.ones_like(moments.mean)

    def __str__(self) -> str:
        return self.name


def refuse(
    activity: np.ndarray,
    wrong: Bool[np.ndarray, "*shape"],
    *,
    need: str,
    cure: str,
    first: int = 0,
) -> None:
    """Refuse activity of which an entry is wrong.

    Raises:
        InputError: naming the first of them.
    """
    if wrong.any():
        index = [int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape)]
        value = activity[tuple(index)]
        index[0] += first
        raise InputError(
            f"activity[trial, time, neuron] = activity{index} is {value:g}, but "
            f"the observation model needs {need}; {cure}"
        )
