"""The static variational autoencoder: each time bin on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution
from torch.optim import AdamW

from seqvae.compute import noise
from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.distributions.stepwise import prior_conditional
from seqvae.encoders import MLP, Direct, Encoder, ReadIn
from seqvae.errors import InputError
from seqvae.models.amortised import AmortisedModel, Encoding
from seqvae.models.latent_variable import DEFAULT_SCHEDULE
from seqvae.models.linear_beginning import begin_readout_aligned
from seqvae.models.trained import OptimizerFactory, ScheduleFactory
from seqvae.nn import feed_forward
from seqvae.nn.dropout import Dropout
from seqvae.objectives import Objective
from seqvae.observations import Observation, Poisson
from seqvae.priors import Prior, StandardNormal
from seqvae.types import Batch, DataSpec, Latent, Output


class VAE(AmortisedModel):
    """Variational autoencoder with one latent a time bin (Kingma & Welling 2014).

    z_t ~ p(z);  f_t = MLP(z_t);  x_t ~ p(x | f_t);  q(z_t | x) from the encoder.

    Forecast bins have no posterior: there z_t is drawn from the prior (given z_{t-1}, if the prior
    has a memory). With a recurrent encoder (``BinGRU``) and an ``AR1`` prior the latents have a
    time course; with ``MLP`` and ``StandardNormal`` each bin stands on its own. With a
    ``DeltaHead`` the encoder answers with a point: an autoencoder. ``FreeGaussian`` in place of an
    encoder is mean-field inference, a mean and a standard deviation for each trial and bin.

    Args:
        spec: facts of the data.
        latent_dim: size of z.
        factor_dim: size of the decoder's last layer, which the observation model reads.
        decoder_dims: layers of the decoder between latent and factors.
        dropout: probability with which an entry of the encoder's input or a unit of the decoder is
            dropped in training.
        read_in: factory (input_dim) -> what the encoder reads of the held-in neurons.
        encoder: factory (input_dim, latent_dim) -> per-bin encoder.
        prior: factory (latent_dim) -> prior.
        observation: factory (factor_dim, num_neurons) -> observation model.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule; None keeps the rate constant.
        validation_samples: posterior samples for each trial in validation.
    """

    dimension_argument: ClassVar[str] = "latent_dim"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: int = 8,
        factor_dim: int = 64,
        decoder_dims: Sequence[int] = (),
        dropout: float = 0.1,
        encoder: Callable[[int, int], Encoder] = MLP,
        prior: Callable[[int], Prior] = StandardNormal,
        observation: Callable[[int, int], Observation] = Poisson,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
        optimizer: OptimizerFactory = partial(AdamW, lr=2e-3, weight_decay=0.1),
        schedule: ScheduleFactory | None = DEFAULT_SCHEDULE,
        validation_samples: int = 4,
        read_in: Annotated[Callable[[int], ReadIn], InConfig(tells_default=False)] = Direct,
    ) -> None:
        super().__init__(
            spec,
            objective=objective,
            optimizer=optimizer,
            schedule=schedule,
            validation_samples=validation_samples,
        )
        for name, size in (("latent_dim", latent_dim), ("factor_dim", factor_dim)):
            if size < 1:
                raise InputError(f"{name} must be at least 1, got {size}")
        self.latent_dim = latent_dim
        self.dropout = Dropout(dropout)
        self.read_in = read_in(spec.num_heldin)
        self.encoder = encoder(self.read_in.output_dim, latent_dim)
        self.prior = prior(latent_dim)
        self.decoder = feed_forward(
            latent_dim,
            factor_dim,
            hidden_dims=decoder_dims,
            dropout=dropout,
            activate_output=True,
            trial_axis=1,
        )
        self.observation = observation(factor_dim, spec.num_neurons)

    def encode(self, batch: Batch) -> Encoding:
        """Return ``latent``, q(z_t | x) of every encoded bin."""
        posterior = self.encoder(self.read_in(self.dropout(self.standardized(batch))), batch)
        if len(posterior.batch_shape + posterior.event_shape) != 3:
            raise InputError(
                f"encoder {type(self.encoder).__name__} answers with one latent a trial, but a VAE "
                "needs one a time bin; use encoder MLP or BinGRU"
            )
        return {"latent": posterior}

    def answer(self, encoding: Encoding, batch: Batch, num_samples: int = 1) -> Output:
        """Draw z_t of every encoded bin, let the prior go on, and decode; see the class."""
        posterior = encoding["latent"]
        assert isinstance(posterior, Distribution)
        sample = self.draw(posterior, num_samples)
        num_encoded, num_bins = batch.observed.shape[1], batch.target.shape[1]
        prior = self.prior((num_encoded, self.latent_dim), self.spec.bin_width)
        latent = Latent(posterior, prior, sample, batch.time_mask[:, :num_encoded])
        path = self._continue(sample, num_bins) if num_bins > num_encoded else sample
        factors = self.decoder(path)
        return Output({"latent": latent}, factors, self.observation(factors))

    def emission_given(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]], batch: Batch
    ) -> Distribution:
        """Decode given ``latent`` (sample, batch, time, latent)."""
        return self.observation(self.decoder(latents["latent"]))

    def initialize(self, data: NeuralData) -> None:
        """Start at the training means; of several sessions with factors that they share."""
        super().initialize(data)
        begin_readout_aligned(self, data)

    def make_room(self, num_trials: int, num_encoded_bins: int) -> None:
        """Start anew what the encoder keeps for each trial and bin."""
        self.encoder.make_room(num_trials, num_encoded_bins)

    def decode(self, latent: Float[Tensor, "*leading latent"]) -> Distribution:
        """Return p(x | z) for given latents."""
        return self.observation(self.decoder(latent))

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior; ``inputs`` are not used by this model."""
        shape = (self.spec.num_time_bins, self.latent_dim)
        prior = self.prior(shape, self.spec.bin_width)
        sample = prior.rsample(torch.Size((1, num_trials)))
        assert sample.shape[2:] == shape
        factors = self.decoder(sample)
        latent = Latent(prior, prior, sample)
        return Output({"latent": latent}, factors, self.observation(factors))

    def _continue(
        self, sample: Float[Tensor, "sample batch encoded_time latent"], num_bins: int
    ) -> Float[Tensor, "sample batch time latent"]:
        """Let the prior go on where the posterior ends."""
        prior = self.prior((num_bins, self.latent_dim), self.spec.bin_width)
        path = list(sample.unbind(2))
        while len(path) < num_bins:
            mean, std = prior_conditional(prior, len(path), path[-1])
            white = noise.normal(path[-1].shape, like=path[-1], axis=1)
            path.append(mean + std * white)
        return torch.stack(path, dim=2)
