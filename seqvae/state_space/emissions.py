"""Linear readouts of a path: expected log-likelihoods under Gaussian paths, and their M-steps.

Each neuron sees one number of the latent, its linear predictor eta_tn = c_n . z_t + d_n, Gaussian
when z_t is. What inference needs is E[log p(x | eta)] and its first two derivatives in the mean of
eta; that in its variance is half the second one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from seqvae.distributions.poisson import log_factorial
from seqvae.scores.floors import LEAST_COUNT
from seqvae.state_space.dynamics import PathMoments

MAX_PREDICTOR = 30.0
ROUNDING = 1e-12
LEAST_BIAS = math.log(LEAST_COUNT)
ENTRIES_AT_ONCE = 200_000  # regressors of neurons that are pooled in one product


class Terms(NamedTuple):
    """E[log p(x | eta)] without what eta does not change, and derivatives in the mean of eta.

    Attributes:
        value: the expectation.
        slope: its derivative.
        curvature: minus its second derivative, never negative.
    """

    value: Float[Tensor, "batch time neuron"]
    slope: Float[Tensor, "batch time neuron"]
    curvature: Float[Tensor, "#batch #time neuron"]


class Response(NamedTuple):
    """The mean of the data E[x | eta] under an uncertain eta: its expectation and deviation."""

    mean: Float[Tensor, "batch time neuron"]
    sd: Float[Tensor, "batch time neuron"]


@dataclass(frozen=True, eq=False)
class LinearEmission(ABC):
    """p(x_tn | eta_tn) with eta_tn = c_n . z_t + d_n.

    Attributes:
        loadings: the c_n.
        bias: the d_n.
    """

    loadings: Float[Tensor, "neuron latent"]
    bias: Float[Tensor, " neuron"]

    @abstractmethod
    def terms(
        self,
        target: Float[Tensor, "batch time neuron"],
        mean: Float[Tensor, "batch time neuron"],
        variance: Float[Tensor, "#batch #time neuron"],
    ) -> Terms:
        """Return the expectations for eta ~ N(mean, variance)."""

    @abstractmethod
    def constant(
        self, target: Float[Tensor, "batch time neuron"]
    ) -> Float[Tensor, "batch time neuron"]:
        """Return what ``terms`` leaves out: value + constant is E[log p(x | eta)] in nats."""

    @abstractmethod
    def response(
        self,
        mean: Float[Tensor, "batch time neuron"],
        variance: Float[Tensor, "#batch #time neuron"],
    ) -> Response:
        """Return the moments of E[x | eta] for eta ~ N(mean, variance)."""

    def log_predictive(
        self,
        target: Float[Tensor, "batch time neuron"],
        mean: Float[Tensor, "batch time neuron"],
        variance: Float[Tensor, "#batch #time neuron"],
    ) -> Float[Tensor, "batch time neuron"] | None:
        """Return log E[p(x | eta)] in nats for eta ~ N(mean, variance); None: not closed."""
        return None

    @abstractmethod
    def maximized(
        self,
        moments: PathMoments,
        *,
        target: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
        ridge: float,
    ) -> LinearEmission:
        """Return the readout after an M-step: E_q[log p(x | z)] - ``penalty`` does not fall."""

    @abstractmethod
    def penalty(self, ridge: float) -> Float[Tensor, ""]:
        """Return the ridge penalty of the loadings, in nats."""

    def expected(self, moments: PathMoments, target: Float[Tensor, "batch time neuron"]) -> Terms:
        """Return the expectations under paths; the last are kept, as bound and M-step ask again."""
        kept = vars(self).get("_expected")
        if kept is None or kept[0] is not moments or kept[1] is not target:
            mean, variance = self.predictor(moments.mean), self.spread(moments.covariance)
            kept = vars(self)["_expected"] = moments, target, self.terms(target, mean, variance)
        terms: Terms = kept[2]
        return terms

    def predictor(self, path: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading neuron"]:
        """Return c_n . z_t + d_n."""
        return path @ self.loadings.mT + self.bias

    def spread(
        self, covariance: Float[Tensor, "batch time latent latent"]
    ) -> Float[Tensor, "batch time neuron"]:
        """Return the variances c_n' Cov(z_t) c_n of the predictor."""
        return covariance.flatten(2) @ self._squares.mT

    def information(
        self, curvature: Float[Tensor, "batch time neuron"]
    ) -> Float[Tensor, "batch time latent latent"]:
        """Return sum_n curvature_tn c_n c_n': what the data of a bin add to the precision."""
        size = self.loadings.shape[1]
        return (curvature @ self._squares).unflatten(-1, (size, size))

    def transformed(
        self, back: Float[Tensor, "latent latent"], shift: Float[Tensor, " latent"]
    ) -> LinearEmission:
        """Return the readout of S (z - s) that says the same, given S^-1 and s."""
        return replace(self, loadings=self.loadings @ back, bias=self.bias + self.loadings @ shift)

    def unconstrained(self) -> list[Tensor]:
        """Return the parameters as tensors that may have any values."""
        return [self.loadings, self.bias]

    def constrained(self, parts: list[Tensor]) -> LinearEmission:
        """Return the readout with parameters as ``unconstrained`` tells them."""
        return replace(self, loadings=parts[0], bias=parts[1])

    def select(self, neurons: list[int]) -> LinearEmission:
        """Return the readout of some neurons only."""
        return replace(self, loadings=self.loadings[neurons], bias=self.bias[neurons])

    def replaced(self, neurons: list[int], other: LinearEmission) -> LinearEmission:
        """Return the readout with that of some neurons taken from another, which is of these."""
        parts = {}
        for field in fields(self):
            part = parts[field.name] = getattr(self, field.name).clone()
            part[neurons] = getattr(other, field.name)
        return replace(self, **parts)

    @property
    def _squares(self) -> Float[Tensor, "neuron square"]:
        return (self.loadings[:, :, None] * self.loadings[:, None, :]).flatten(1)


@dataclass(frozen=True, eq=False)
class PoissonEmission(LinearEmission):
    """Counts x ~ Poisson(exp(eta)): E[log p] = x m - exp(m + v/2) - log x! for eta ~ N(m, v)."""

    def terms(self, target: Tensor, mean: Tensor, variance: Tensor) -> Terms:
        """Return the expectations; the exponent is capped, so that a far step stays finite."""
        rate = (mean + 0.5 * variance).clamp_max_(MAX_PREDICTOR).exp_()
        return Terms(target * mean - rate, target - rate, rate)

    def constant(self, target: Tensor) -> Tensor:
        """Return -log x!."""
        return -log_factorial(target)

    def response(self, mean: Tensor, variance: Tensor) -> Response:
        """Return those of a log-normal rate: exp(m + v/2), and that times sqrt(exp(v) - 1)."""
        rate = (mean + 0.5 * variance).exp()
        return Response(rate, rate * variance.clamp_min(0.0).expm1().sqrt())

    def constrained(self, parts: list[Tensor]) -> PoissonEmission:
        """Return the readout with these parameters, the biases not below log 1e-9."""
        return PoissonEmission(parts[0], parts[1].clamp_min(LEAST_BIAS))

    def penalty(self, ridge: float) -> Tensor:
        """Return ridge |c|^2 / 2, summed over neurons."""
        return 0.5 * ridge * self.loadings.square().sum()

    def maximized(
        self, moments: PathMoments, *, target: Tensor, weight: Tensor, ridge: float
    ) -> PoissonEmission:
        """Take one Newton step for each neuron, halved until its objective does not fall.

        With V_t = Cov(z_t), s_t = (m_t + V_t c, 1) and rate_t = exp(c . m_t + d + c' V_t c / 2),
        the gradient in (c, d) is sum w (x (m_t, 1) - rate_t s_t) and the Hessian
        -sum w rate_t (s_t s_t' + V_t). The bias stays above log 1e-9: a silent neuron stays finite.
        """
        size = self.loadings.shape[1]
        mean, covariance = moments.mean, moments.covariance
        counts = weight * target
        drive = torch.einsum("btn,bti->ni", counts, mean)
        total = counts.sum((0, 1))

        def rates(emission: PoissonEmission) -> Float[Tensor, "batch time neuron"]:
            spread = emission.spread(covariance)
            return weight * emission.terms(target, emission.predictor(mean), spread).curvature

        def objective(emission: PoissonEmission, rate: Tensor) -> Float[Tensor, " neuron"]:
            gain = (emission.loadings * drive).sum(1) + emission.bias * total
            ridge_term = 0.5 * ridge * emission.loadings.square().sum(1)
            return gain - rate.sum((0, 1)) - ridge_term

        rate = weight * self.expected(moments, target).curvature
        by_neuron = rate.flatten(0, 1).mT.contiguous()
        blocks = covariance.expand(*mean.shape, size).flatten(0, 1)
        pooled = (by_neuron @ blocks.flatten(1)).unflatten(-1, (size, size))
        columns = blocks.permute(1, 2, 0).flatten(1)  # of each V_t its rows are its columns
        path = mean.flatten(0, 1).mT.contiguous()
        hessian = rate.new_empty(len(drive), size + 1, size + 1)
        chunk = max(1, ENTRIES_AT_ONCE // (path.shape[1] * (size + 1)))
        parts = (self.loadings.split(chunk), by_neuron.split(chunk), hessian.split(chunk))
        for loadings, of_rate, part in zip(*parts, strict=True):
            regressors = path.new_ones(len(part), size + 1, path.shape[1])
            tilted = (loadings @ columns).unflatten(1, path.shape)
            torch.add(tilted, path, out=regressors[:, :size])
            torch.bmm(regressors * of_rate[:, None], regressors.mT, out=part)
        # the last regressor is 1, so its products are sums
        gradient = torch.cat([drive, total[:, None]], dim=1) - hessian[:, :, size]
        gradient[:, :size] -= ridge * self.loadings
        hessian[:, :size, :size] += pooled + ridge * torch.eye(size).to(pooled)
        step = torch.linalg.solve(hessian, gradient)

        floor = objective(self, rate)
        floor = floor - ROUNDING * floor.abs()
        length = torch.ones_like(total)
        for _ in range(30):
            moved = PoissonEmission(
                self.loadings + length[:, None] * step[:, :size],
                (self.bias + length * step[:, size]).clamp_min(LEAST_BIAS),
            )
            falls = ~(objective(moved, rates(moved)) >= floor)
            if not bool(falls.any()):
                return moved
            length = torch.where(falls, 0.5 * length, length)
        return PoissonEmission(
            torch.where(falls[:, None], self.loadings, moved.loadings),
            torch.where(falls, self.bias, moved.bias),
        )


@dataclass(frozen=True, eq=False)
class GaussianEmission(LinearEmission):
    """Real values x ~ N(eta, sigma_n^2): E[log p] has -((x - m)^2 + v) / (2 sigma^2).

    Attributes:
        std: the sigma_n.
        least_std: lower bounds of the sigma_n.
    """

    std: Float[Tensor, " neuron"]
    least_std: Float[Tensor, " neuron"]

    def terms(self, target: Tensor, mean: Tensor, variance: Tensor) -> Terms:
        """Return the expectations."""
        precision = self.std.square().reciprocal()
        residual = target - mean
        value = -0.5 * precision * (residual.square() + variance)
        return Terms(value, precision * residual, precision.expand(1, 1, -1))

    def constant(self, target: Tensor) -> Tensor:
        """Return -log(sigma sqrt(2 pi))."""
        return (-self.std.log() - 0.5 * math.log(2 * math.pi)).expand_as(target)

    def response(self, mean: Tensor, variance: Tensor) -> Response:
        """Return those of eta itself."""
        return Response(mean, variance.clamp_min(0.0).sqrt().expand_as(mean))

    def log_predictive(self, target: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Return the density of N(m, v + sigma^2)."""
        std = (variance.clamp_min(0.0) + self.std.square()).sqrt()
        return Normal(mean, std, validate_args=False).log_prob(target)

    def unconstrained(self) -> list[Tensor]:
        """Return the parameters, the deviations by their logarithms."""
        return [self.loadings, self.bias, self.std.log()]

    def constrained(self, parts: list[Tensor]) -> GaussianEmission:
        """Return the readout with these parameters, the deviations not below their bounds."""
        std = parts[2].exp().maximum(self.least_std)
        return replace(self, loadings=parts[0], bias=parts[1], std=std)

    def select(self, neurons: list[int]) -> GaussianEmission:
        """Return the readout of some neurons only."""
        parts = (self.loadings, self.bias, self.std, self.least_std)
        return GaussianEmission(*(part[neurons] for part in parts))

    def in_units(
        self, origin: Float[Tensor, " neuron"], unit: Float[Tensor, " neuron"]
    ) -> GaussianEmission:
        """Return the readout of (x - origin) / unit."""
        return GaussianEmission(
            self.loadings / unit[:, None],
            (self.bias - origin) / unit,
            self.std / unit,
            self.least_std / unit,
        )

    def penalty(self, ridge: float) -> Tensor:
        """Return ridge |c|^2 / (2 sigma^2), summed over neurons: the same in any unit of x."""
        return 0.5 * ridge * (self.loadings.square().sum(1) / self.std.square()).sum()

    def maximized(
        self, moments: PathMoments, *, target: Tensor, weight: Tensor, ridge: float
    ) -> GaussianEmission:
        """Regress each neuron on (z_t, 1), and take the mean square of what is left.

        (c, d) = (sum w E[r r'] + ridge)^-1 sum w x E[r],  sigma^2 = (rest + ridge |c|^2) / sum w.
        The mean of x is taken off before, and added to d. A neuron without weight reads nothing.
        """
        mean, covariance = moments.mean, moments.covariance
        size = mean.shape[-1]
        regressors = torch.cat([mean, torch.ones_like(mean[..., :1])], dim=-1).flatten(0, 1)
        products = (regressors[:, :, None] * regressors[:, None, :]).flatten(1)
        square = (weight.flatten(0, 1).mT @ products).unflatten(-1, (size + 1, size + 1))
        # a covariance that all trials share needs the weights' sum over trials only
        pooled = weight if len(covariance) > 1 else weight.sum(0, keepdim=True)
        pooled = pooled.flatten(0, 1).mT @ covariance.flatten(2).flatten(0, 1)
        square[:, :size, :size] += pooled.unflatten(-1, (size, size))
        total = weight.sum((0, 1))
        is_seen, total = total > 0, total.clamp_min(torch.finfo(total.dtype).tiny)
        square[:, size, size] = torch.where(is_seen, square[:, size, size], 1.0)
        center = (weight * target).sum((0, 1)) / total
        deviation = weight * (target - center)
        cross = deviation.flatten(0, 1).mT @ regressors
        diagonal = torch.full((size + 1,), ridge, dtype=mean.dtype, device=mean.device)
        diagonal[-1] = 0
        solved = torch.linalg.solve(square + diagonal.diag(), cross)
        rest = (deviation * (target - center)).sum((0, 1)) - (solved * cross).sum(1)
        std = (rest / total).clamp_min(0).sqrt().maximum(self.least_std)
        return replace(
            self,
            loadings=solved[:, :size],
            bias=center + solved[:, size],
            std=torch.where(is_seen, std, self.std),
        )
