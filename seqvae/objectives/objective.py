"""The settings of the objective, and the warm-up of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from seqvae.errors import InputError

BoundName = Literal["elbo", "iwae"]
GradientName = Literal["reparameterised", "score_function"]
BaselineName = Literal["leave_one_out", "none"]


@dataclass(frozen=True)
class Objective:
    """What training minimises: -(log-likelihood - beta KL) + recurrent_l2 * mean W^2, per trial.

    The warm-ups are counted in optimiser steps, so the batch size does not change them. The
    defaults end at beta = 1: the true evidence lower bound. Validation always uses beta = 1.

    Attributes:
        beta: final weight of the KL; other values than 1 make a beta-VAE (Higgins et al. 2017), 0
            an autoencoder (without noise, too, if the posterior is a point).
        beta_start: step at which beta begins to rise from 0.
        beta_steps: steps over which beta rises; 0 for the final value at once.
        recurrent_l2: final weight (nats per trial) of the mean squared recurrent weight.
        recurrent_l2_start: step at which this weight begins to rise from 0.
        recurrent_l2_steps: steps over which it rises.
        bound: "elbo", or "iwae" for the importance-weighted bound on ``num_samples`` samples, whose
            log-ratio beta weighs (Burda et al. 2016).
        num_samples: posterior samples for each trial and step.
        gradient: "reparameterised" (Kingma & Welling 2014), or "score_function" for any posterior
            with a density, also a discrete one (Ranganath et al. 2014).
        baseline: what the score function's signal is measured against: "leave_one_out", the other
            samples of the trial (Mnih & Rezende 2016; Kool et al. 2019), or "none".
        free_bits: KL, in nats per trial, up to which a dimension of a latent costs no less: instead
            of its KL, the mean over the batch, max(free_bits, KL) counts (Kingma et al. 2016). A
            latent whose KL does not separate is one dimension.
        kl_target: C, in nats per trial; not the KL, but |KL - C| is weighed by beta, with the mean
            KL over the batch (Burgess et al. 2018). None: no target.
        kl_target_steps: steps over which the target rises from 0.

    Raises:
        InputError: for a weight that is negative or not finite, or settings that exclude each
            other.
    """

    beta: float = 1.0
    beta_start: int = 0
    beta_steps: int = 300
    recurrent_l2: float = 0.0
    recurrent_l2_start: int = 0
    recurrent_l2_steps: int = 300
    bound: BoundName = "elbo"
    num_samples: int = 1
    gradient: GradientName = "reparameterised"
    baseline: BaselineName = "leave_one_out"
    free_bits: float = 0.0
    kl_target: float | None = None
    kl_target_steps: int = 0

    def __post_init__(self) -> None:
        for name in (
            "beta", "recurrent_l2", "beta_start", "beta_steps", "recurrent_l2_start",
            "recurrent_l2_steps", "free_bits", "kl_target", "kl_target_steps",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name} must be finite and at least 0, got {value}")
        for name, choices in (("bound", BoundName), ("gradient", GradientName),
                              ("baseline", BaselineName)):  # fmt: skip
            if getattr(self, name) not in get_args(choices):
                words = " or ".join(map(repr, get_args(choices)))
                raise InputError(f"{name} must be {words}, got {getattr(self, name)!r}")
        if self.num_samples < 1:
            raise InputError(f"num_samples must be at least 1, got {self.num_samples}")
        if self.uses_score and self.baseline == "leave_one_out" and self.num_samples < 2:
            raise InputError(
                "num_samples must be at least 2 for gradient 'score_function', whose baseline is "
                f"made of the other samples, got {self.num_samples}"
            )
        if self.free_bits > 0 and self.kl_target is not None:
            raise InputError("free_bits and kl_target exclude each other; give one of them")
        if self.shapes_kl and self.bound == "iwae":
            name = "kl_target" if self.free_bits == 0 else "free_bits"
            raise InputError(f"{name} shapes the KL, which bound 'iwae' has not; use bound 'elbo'")

    @property
    def shapes_kl(self) -> bool:
        """Whether the KL counts otherwise than by its sum times beta."""
        return self.free_bits > 0 or self.kl_target is not None

    @property
    def uses_score(self) -> bool:
        """Whether the gradient is taken by the score function, not through the samples."""
        return self.gradient == "score_function"

    def beta_at(self, step: int) -> float:
        """Return the weight of the KL at an optimiser step."""
        return self.beta * ramp(step, start=self.beta_start, steps=self.beta_steps)

    def recurrent_l2_at(self, step: int) -> float:
        """Return the weight of the L2 term at an optimiser step."""
        return self.recurrent_l2 * ramp(
            step, start=self.recurrent_l2_start, steps=self.recurrent_l2_steps
        )

    def kl_target_at(self, step: int) -> float | None:
        """Return the target of the KL at an optimiser step."""
        if self.kl_target is None:
            return None
        return self.kl_target * ramp(step, start=0, steps=self.kl_target_steps)

    @property
    def ramp_ends(self) -> dict[str, int]:
        """Step at which each weight has its final value, by the setting of its warm-up."""
        ends = {"beta_steps": self.beta_start + self.beta_steps}
        if self.recurrent_l2 > 0:
            ends["recurrent_l2_steps"] = self.recurrent_l2_start + self.recurrent_l2_steps
        if self.kl_target is not None:
            ends["kl_target_steps"] = self.kl_target_steps
        return ends

    @property
    def ramp_end(self) -> int:
        """First step at which every weight has its final value."""
        return max(self.ramp_ends.values())


def ramp(step: int, *, start: int, steps: int) -> float:
    """Rise linearly from 0 at ``start`` to 1 at ``start + steps``."""
    if step < start:
        return 0.0
    return 1.0 if step >= start + steps else (step - start) / steps
