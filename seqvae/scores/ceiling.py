"""How well the best model of the condition's rate alone could predict, from repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqvae.scores.floors import LEAST_COUNT

ALL = 0.9995
"""Share of entries that is told as all of them."""


class Repeats:
    """Sums over the trials of each condition, for each bin and neuron that is scored.

    Args:
        num_conditions: of them.
        shape: bins and neurons.
    """

    def __init__(self, num_conditions: int, shape: tuple[int, int]) -> None:
        zeros = torch.zeros(num_conditions, *shape, dtype=torch.float64)
        self.number, self.total, self.squares = zeros, zeros.clone(), zeros.clone()

    def update(
        self,
        target: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
        condition: Int[Tensor, " batch"],
    ) -> None:
        """Add trials; what has no weight is not scored."""
        seen = (weight > 0).double()
        values = torch.where(weight > 0, target.double(), 0.0)
        self.number.index_add_(0, condition, seen)
        self.total.index_add_(0, condition, values)
        self.squares.index_add_(0, condition, values**2)

    @property
    def come_again(self) -> Bool[Tensor, "condition time neuron"]:
        """Where at least two trials were seen, without which nothing is known of the noise."""
        return self.number >= 2

    def residual(self) -> Float[Tensor, "condition time neuron"]:
        """Return without bias what squared error the true rate of the condition would leave.

        K / (K - 1) sum_k (x_k - mean x)^2, whose expectation is K times the variance over trials,
        whatever their distribution [the noise power of Sahani & Linden 2003, NIPS 15].
        """
        number = self.number.clamp(min=2)
        within = self.squares - self.total**2 / number
        return number / (number - 1) * within.clamp(min=0)

    def log_likelihood(self) -> Float[Tensor, "condition time neuron"]:
        """Return at least the Poisson log-likelihood that the true rate is expected to have.

        K (r log r - r) from S spikes in K trials as S (G(S) - log K) - S, with

            G(S) = psi(S) + (-1)^S (psi((S + 1) / 2) - psi(S / 2)) / 2

        [Grassberger 2003, arXiv:physics/0307138]: where spikes are Poisson, its expectation exceeds
        the true one by K r E1(2 K r) exactly, .05 nats at one expected spike and next to nothing
        above three. Trials that differ more than Poisson raise it further. log x! is left out.
        """
        return self.total * (_grassberger(self.total) - self.number.clamp(min=1).log()) - self.total


def _grassberger(total: Float[Tensor, ...]) -> Float[Tensor, ...]:
    number = total.clamp(min=1)
    sign = 1 - 2 * (number % 2)
    between = torch.digamma((number + 1) / 2) - torch.digamma(number / 2)
    return torch.digamma(number) + sign * between / 2


class Ceiling(NamedTuple):
    """A score, and what a model of the condition's rate alone could reach at best.

    Attributes:
        model: the score, of the entries that come again.
        lower: what a condition mean learned from other trials reaches; None: it is not known.
        upper: what the true rate of each condition could: without bias for the share of variance,
            at least for bits per spike.
        fraction: model over upper; above 1 where a model knows of single trials what no condition
            tells, NaN where upper is not above 0.
        share: of the scored entries, those that come again.
    """

    model: float
    lower: float | None
    upper: float
    fraction: float
    share: float

    @classmethod
    def of(cls, model: float, upper: float, *, share: float) -> Ceiling:
        """Return it without a lower estimate."""
        return cls(model, None, upper, model / upper if upper > 0 else math.nan, share)


class ModelSums:
    """The errors and log-likelihoods of a model on what comes again, cell by cell of a region.

    Args:
        repeats: complete.
        null: mean activity of each neuron over the training trials.
        region: the bins and neurons that are scored.
    """

    def __init__(
        self,
        repeats: Repeats,
        null: Float[Tensor, " neuron"],
        region: Bool[Tensor, "time neuron"],
    ) -> None:
        self.repeats, self.null = repeats, null.double()
        self.region = region
        self.cells = repeats.come_again & region
        self.residual = self.log_likelihood = 0.0

    def update(
        self,
        mean: Float[Tensor, "batch time neuron"],
        target: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
        condition: Int[Tensor, " batch"],
    ) -> None:
        """Add trials that were predicted."""
        asked = self.cells[condition] & (weight > 0)
        predicted, values = mean.double()[asked], target.double()[asked]
        self.residual += float(((values - predicted) ** 2).sum())
        predicted = predicted.clamp(min=LEAST_COUNT)
        self.log_likelihood += float((values * predicted.log() - predicted).sum())

    @property
    def share(self) -> float:
        """Share of the scored entries of the region that come again; NaN where none is scored."""
        number = self.repeats.number
        return float(number[self.cells].sum() / (number * self.region).sum())

    def variance(self) -> Ceiling:
        """Return the share of the variance about the mean rates that is explained."""
        repeats = self.repeats
        about = repeats.squares - 2 * self.null * repeats.total + self.null**2 * repeats.number
        all_of_it = float(about[self.cells].sum())
        left = float(repeats.residual()[self.cells].sum())
        if all_of_it <= 0:
            return Ceiling.of(math.nan, math.nan, share=self.share)
        return Ceiling.of(1 - self.residual / all_of_it, 1 - left / all_of_it, share=self.share)

    def bits(self) -> Ceiling:
        """Return bits per spike over the mean rates."""
        repeats, null = self.repeats, self.null.clamp(min=LEAST_COUNT)
        of_null = float((repeats.total * null.log() - null * repeats.number)[self.cells].sum())
        best = float(repeats.log_likelihood()[self.cells].sum())
        size = math.log(2) * float(repeats.total[self.cells].sum())
        if size <= 0:
            return Ceiling.of(math.nan, math.nan, share=self.share)
        model, upper = (self.log_likelihood - of_null) / size, (best - of_null) / size
        return Ceiling.of(model, upper, share=self.share)


def ceiling_words(name: str, ceiling: Mapping[str, Any]) -> str:
    """Say what a model has of what the rate of the condition alone could reach, in a sentence.

    Args:
        name: of the score.
        ceiling: the fields of ``Ceiling``.
    """
    lower = f"{ceiling['lower']:.4f} (condition mean) to " if ceiling["lower"] is not None else ""
    most = "" if name == "variance_explained" else "at most "
    reached = f"alone could reach {lower}{most}{ceiling['upper']:.4f}"
    if not ceiling["upper"] > 0:
        reached = f"is not seen to differ from the mean rate ({ceiling['upper']:.4f})"
    share = f" ({100 * ceiling['fraction']:.0f} %)" if 0 < ceiling["fraction"] <= 1 else ""
    if ceiling["fraction"] > 1:
        share = ", beyond it, as single trials of a condition differ"
    come_again = f", both of the {100 * ceiling['share']:.0f} % of entries that come again"
    return (
        f"{name}: the rate of the condition {reached}; the model reaches {ceiling['model']:.4f}"
        f"{share}{come_again if ceiling['share'] < ALL else ''}"
    )
