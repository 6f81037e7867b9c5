"""Linear factors of smoothed activity, each bin on its own: what factor analysis and PCA share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor, nn
from torch.distributions import MultivariateNormal

from seqvae.baselines.smoothing import widths
from seqvae.compute.views import Chosen, put
from seqvae.distributions import draw
from seqvae.distributions.kinds.real import LEAST_VARIATION
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.linear_readout import (
    emission_of,
    linear_expectations,
    require_linear_readout,
    take_emission,
)
from seqvae.observations import Observation, Poisson
from seqvae.state_space.dynamics import PathMoments, positive
from seqvae.state_space.e_steps import expected_log_likelihood
from seqvae.state_space.emissions import LEAST_BIAS, LinearEmission
from seqvae.state_space.initialization import READOUT_STEPS
from seqvae.types import Batch, DataSpec, Expectations, Latent, Output

READOUT_NEURON_FOLDS = 5
READOUT_TRIAL_FOLDS = 5
MAX_TRIALS_TO_CHOOSE = 100
LEAST_NOISE = 1e-2


class Loadings(NamedTuple):
    """y = W z + e with z ~ N(0, I) and e ~ N(0, diag(noise)); y has mean 0.

    Attributes:
        weight: W.
        noise: variance of e.
    """

    weight: Float[np.ndarray, "neuron latent"]
    noise: Float[np.ndarray, " neuron"]


class LinearFactors(Model):
    """Factors of smoothed activity by a linear Gaussian model, read out by a GLM.

        y_tn = (W z_t)_n + e_tn,   z_t ~ N(0, I),   e_tn ~ N(0, psi_n / r_tn),   x_tn ~ p(x | z_t)

    The features y are the activity of a neuron averaged under a Gaussian kernel over the bins that
    were seen: its square root for counts, in standard deviations for real data, less its mean.
    r_tn is the share of the kernel's weight that was seen: at an edge, in a gap and past the last
    encoded bin features count for less, and what nothing tells of is at the prior. W and psi are
    learned by scikit-learn (the members differ in how) from the training trials, and latents
    inferred from any neurons: the Gaussian posterior given their features.

    The readout x is learned on these posteriors. Each neuron is read out from latents that were
    inferred without it and a fifth of the others, so that it cannot predict itself. The kernel is
    the one with which neurons are predicted best in a fifth of the training trials that
    factors and readout have not seen. External inputs are not used.

    Bins share spikes through the kernel, which the model does not know: the posterior of each bin
    is that of its own features, and together they are too sure. The ``elbo`` is a bound on log p of
    a model whose bins are independent, and low for what is slow; compare by bits per spike.

    Args:
        spec: facts of the data.
        latent_dim: size of z; latents beyond the number of neurons stay at the prior.
        observation: factory (latent_dim, num_neurons): ``Poisson`` or ``Gaussian``.
        smoothing: standard deviation of the kernel in seconds (in bins, for data without a bin
            width); 0 for none; ``auto`` chooses it.

    Raises:
        InputError: for a size below 1, a readout of other data or a negative width.
    """

    dimension_argument: ClassVar[str] = "latent_dim"
    serves_any_heldin: ClassVar[bool] = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int = 8,
        observation: Callable[[int, int], Observation] = Poisson,
        smoothing: float | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(spec)
        if latent_dim < 1:
            raise InputError(f"latent_dim must be at least 1, got {latent_dim}")
        if smoothing != "auto" and not (smoothing >= 0 and math.isfinite(smoothing)):
            raise InputError(f"smoothing must be 'auto' or seconds, at least 0, got {smoothing}")
        self.latent_dim = latent_dim
        self.smoothing = smoothing
        self.observation = observation(latent_dim, spec.num_neurons).double()
        require_linear_readout(self.observation, type(self).__name__)
        zeros = torch.zeros(spec.num_neurons, dtype=torch.float64)
        self.loadings = nn.Parameter(zeros.new_zeros(spec.num_neurons, latent_dim))
        self.log_noise = nn.Parameter(zeros.clone())
        self.center: Tensor
        self.unit: Tensor
        self.width: Tensor
        self.register_buffer("center", zeros.clone())
        self.register_buffer("unit", zeros + 1)
        self.register_buffer("width", zeros.new_tensor(0.0 if smoothing == "auto" else smoothing))
        if smoothing != "auto" and spec.bin_width is not None:
            self.width /= spec.bin_width
        self.requires_grad_(False)  # learned in closed form

    def _narrow(self, view: Model, chosen: Chosen) -> None:
        super()._narrow(view, chosen)
        for name in ("loadings", "log_noise", "center", "unit"):
            put(view, name, getattr(self, name)[chosen.neurons])

    @staticmethod
    @abstractmethod
    def factorize(covariance: Float[np.ndarray, "neuron neuron"], size: int) -> Loadings:
        """Return the loadings of so many latents that explain a covariance; size <= neurons."""

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the latents of each bin, draw samples and read them out; see the class."""
        posterior = self.infer(
            batch.observed, batch.observed_mask, list(self.spec.heldin), batch.target.shape[1]
        )
        sample = draw(posterior, num_samples)
        latent = Latent(posterior, self._prior(batch.target.shape[:2]), sample, batch.time_mask)
        return Output({"latents": latent}, sample, self.observation(sample))

    def expectations(self, output: Output, batch: Batch) -> Expectations:
        """Return what the Gaussian posterior of each bin expects, in closed form."""
        posterior = output.latents["latents"].posterior
        assert isinstance(posterior, MultivariateNormal)
        return linear_expectations(
            self.observation,
            posterior.mean,
            posterior.covariance_matrix,
            target=batch.target,
        )

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior, each bin on its own; ``inputs`` are not used."""
        num_bins = self.spec.num_time_bins if inputs is None else inputs.shape[1]
        prior = self._prior(Size((num_trials, num_bins)))
        sample = prior.rsample(Size((1,)))
        return Output({"latents": Latent(prior, prior, sample)}, sample, self.observation(sample))

    def infer(
        self,
        activity: Float[Tensor, "batch encoded_time chosen"],
        seen: Bool[Tensor, "batch encoded_time chosen"],
        neurons: list[int],
        num_bins: int,
    ) -> MultivariateNormal:
        """Return the posterior of the latents of ``num_bins`` bins, given some neurons.

        Its precision is I + sum_n r_tn w_n w_n' / psi_n.

        Args:
            activity: of these neurons.
            seen: False where it is missing.
            neurons: their indices.
            num_bins: bins to infer, more than were seen if some are forecast.
        """
        averaged, share = self._features(activity, seen, num_bins)
        features = (averaged - self.center[neurons]) / self.unit[neurons]
        loadings = self.loadings[neurons]
        scaled = loadings / self.log_noise[neurons].exp()[:, None]
        squares = (loadings[:, :, None] * scaled[:, None, :]).flatten(1)
        precision = torch.eye(self.latent_dim).to(share) + (share @ squares).unflatten(
            -1, (self.latent_dim, self.latent_dim)
        )
        drive = (share * features) @ scaled
        mean = torch.linalg.solve(precision, drive)
        return MultivariateNormal(mean, precision_matrix=precision, validate_args=False)

    @torch.no_grad()
    def learn(self, batch: Batch, *, ridge: float) -> None:
        """Learn kernel, loadings and readout from trials: all their neurons and bins.

        Args:
            batch: the trials; what has weight is seen.
            ridge: penalty of the readout's loadings, ridge |c|^2 / 2, in nats.
        """
        batch = batch.to(self.loadings)
        if self.smoothing == "auto":
            self.width.fill_(self._best_width(batch, ridge))
        self._learn_loadings(batch)
        emission = emission_of(self.observation)
        for fold, learned in self._learned_readouts(batch, ridge):
            emission = emission.replaced(fold, learned)
        take_emission(self.observation, emission)

    def _best_width(self, batch: Batch, ridge: float) -> float:
        """Kernel width that predicts neurons of unseen trials best from the others, in bins.

        Kernels are widened until that has not helped twice.
        """
        if batch.target.shape[1] == 1:
            return 0.0
        batch = batch[torch.arange(0, len(batch), -(-len(batch) // MAX_TRIALS_TO_CHOOSE))]
        unseen = torch.arange(len(batch)) % READOUT_TRIAL_FOLDS == READOUT_TRIAL_FOLDS - 1
        train, test = (batch[~unseen], batch[unseen]) if bool(unseen.any()) else (batch, batch)
        scores: dict[float, float] = {}
        for width in (0.0, *widths(batch.target.shape[1])):
            self.width.fill_(width)
            self._learn_loadings(train)
            readouts = self._learned_readouts(train, ridge)
            scores[width] = sum(self._score(*readout, test) for readout in readouts)
            best = max(scores, key=scores.__getitem__)
            if best not in list(scores)[-2:]:
                break
        return best

    def _score(self, fold: list[int], emission: LinearEmission, batch: Batch) -> float:
        """Expected log-likelihood of some neurons, their latents inferred from the others."""
        likelihood = expected_log_likelihood(
            self._moments_without(fold, batch),
            emission,
            target=batch.target[..., fold],
            weight=batch.weight[..., fold],
        )
        return float(likelihood.sum())

    def _learn_loadings(self, batch: Batch) -> None:
        """Learn W and psi from the covariance of the features, weighted by the share seen."""
        features, share = self._features(batch.target, batch.weight > 0, batch.target.shape[1])
        features, share = features.flatten(0, 1), (share * batch.time_mask[..., None]).flatten(0, 1)
        self.center.copy_((share * features).sum(0) / share.sum(0).clamp_min(1e-9))
        deviation = share * (features - self.center)
        covariance = deviation.mT @ deviation / (share.mT @ share).clamp_min(1e-9)
        variance = covariance.diagonal()
        varies = variance > LEAST_VARIATION**2 * self.center.square()
        if not self._counts:
            self.unit.copy_(torch.where(varies, variance.sqrt(), 1.0))
        self.loadings.zero_()
        self.log_noise.zero_()
        neurons = self._scored
        if not neurons:
            return
        unit, varies = self.unit[neurons], varies[neurons]
        covariance = positive(covariance[neurons][:, neurons] / unit / unit[:, None])
        variance = covariance.diagonal()
        size = min(self.latent_dim, len(variance))
        factors = self.factorize(covariance.cpu().numpy(), size)
        weight, noise = (torch.from_numpy(part).to(covariance) for part in factors)
        largest = weight.gather(0, weight.abs().argmax(0, keepdim=True))[0]
        weight = weight * torch.where(largest < 0, -1.0, 1.0) * varies[:, None]
        self.loadings[neurons, :size] = weight
        noise = torch.where(varies, torch.maximum(noise, LEAST_NOISE * variance), 1.0)
        self.log_noise[neurons] = noise.log()

    def _learned_readouts(
        self, batch: Batch, ridge: float
    ) -> Iterator[tuple[list[int], LinearEmission]]:
        """Yield the readout of each fold of neurons, learned on latents inferred from the rest."""
        total = batch.weight.sum((0, 1)).clamp_min(1e-9)
        mean = (batch.weight * batch.target).sum((0, 1)) / total
        start = replace(
            emission_of(self.observation),
            loadings=torch.zeros_like(self.loadings),
            bias=mean.log().clamp_min(LEAST_BIAS) if self._counts else mean,
        )
        for fold in self._folds():
            moments, emission = self._moments_without(fold, batch), start.select(fold)
            for _ in range(READOUT_STEPS if self._counts else 1):
                emission = emission.maximized(
                    moments,
                    target=batch.target[..., fold],
                    weight=batch.weight[..., fold],
                    ridge=ridge,
                )
            yield fold, emission

    @property
    def _scored(self) -> list[int]:
        scored = self.observation.scored
        return list(range(len(self.center))) if scored is None else scored.nonzero()[:, 0].tolist()

    def _folds(self) -> list[list[int]]:
        neurons = self._scored
        number = min(READOUT_NEURON_FOLDS, len(neurons))
        return [neurons[first::number] for first in range(number)]

    def _moments_without(self, fold: list[int], batch: Batch) -> PathMoments:
        others = [n for n in self._scored if n not in fold]
        seen = batch.weight[..., others] > 0
        posterior = self.infer(batch.target[..., others], seen, others, seen.shape[1])
        covariance = posterior.covariance_matrix
        return PathMoments(posterior.mean, covariance, covariance[:1, 1:])

    def _features(
        self,
        activity: Float[Tensor, "batch encoded_time chosen"],
        seen: Bool[Tensor, "batch encoded_time chosen"],
        num_bins: int,
    ) -> tuple[Float[Tensor, "batch time chosen"], Float[Tensor, "batch time chosen"]]:
        """Return the kernel's average (its square root for counts), and the share r seen."""
        present = seen.to(self.center)
        steps = torch.arange(max(num_bins, self.spec.num_time_bins)).to(self.center)
        lag = steps[:, None] - steps
        kernel = torch.exp(-0.5 * (lag / self.width.clamp_min(1e-3)).square())
        most = kernel.sum(1).max()
        kernel = kernel[:num_bins, : seen.shape[1]]
        total = kernel @ torch.where(seen, activity.to(self.center), 0.0)
        weight = kernel @ present
        average = total / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        return average.clamp_min(0).sqrt() if self._counts else average, weight / most

    @property
    def _counts(self) -> bool:
        return isinstance(self.observation, Poisson)

    def _prior(self, shape: Size) -> MultivariateNormal:
        identity = torch.eye(self.latent_dim).to(self.center)
        zeros = self.center.new_zeros(*shape, self.latent_dim)
        return MultivariateNormal(zeros, scale_tril=identity, validate_args=False)
