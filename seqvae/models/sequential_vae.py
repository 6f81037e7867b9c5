"""The recurrent sequential variational autoencoder (LFADS)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import AdamW

from seqvae.config.arguments import InConfig
from seqvae.data import NeuralData
from seqvae.distributions import PathGaussian
from seqvae.distributions.stepwise import prior_conditional
from seqvae.encoders import Direct, Encoder, ReadIn, TrialGRU
from seqvae.errors import InputError
from seqvae.generators import GRU, Generator
from seqvae.models.amortised import AmortisedModel, Encoding
from seqvae.models.latent_variable import DEFAULT_SCHEDULE
from seqvae.models.linear_beginning import begin_readout_aligned
from seqvae.models.trained import OptimizerFactory, ScheduleFactory
from seqvae.nn import SequenceGRU
from seqvae.nn.controlled_decoder import ControlledDecoder
from seqvae.nn.decoder_path import DecoderDraws
from seqvae.nn.dropout import Dropout
from seqvae.nn.recurrent import Recursion
from seqvae.objectives import Objective
from seqvae.observations import Observation, Poisson
from seqvae.priors import AR1, LearnableNormal, Prior
from seqvae.types import Batch, DataSpec, Latent, Output


class SequentialVAE(AmortisedModel):
    """Sequential VAE: a generator network driven by inferred inputs (Sussillo et al. 2016).

    Encoding: q(initial condition | x) from a bidirectional GRU; e_t from a second one.
    g_0 = clamp(affine(initial condition)). Then for t = 1..T
    c_t = GRU([e_t, f_{t-1}], c_{t-1});  u_t ~ q(u_t | c_t) Gaussian;
    g_t = generator([u_t, external inputs_t], g_{t-1});  f_t = W g_t;  x_t ~ p(x | f_t).

    In forecast bins, which no e_t reaches, u_t is drawn from its prior.

    Args:
        spec: facts of the data.
        factor_dim: number of factors, the dimension of the model's account of the population.
        generator_dim: size of the generator's state; None: that of the factors, so that
            ``factor_dim`` is the dimension of the dynamics, too.
        initial_condition_dim: size of the initial condition; None: that of the generator's state.
        inferred_input_dim: size of u_t; 0 removes the controller (autonomous dynamics).
        controller_dim: size of the controller's state.
        controller_encoder_dim: units of each direction of the controller's encoder.
        controller_lag: bins between the data a controller input has seen and its own bin: e_t holds
            the forward state of t - lag and the backward state of t + lag.
        causal: e_t holds the forward state only. Needs an encoder that reads only the first bins,
            e.g. ``partial(TrialGRU, num_bins=10)``; then, once these have passed, u_t depends on no
            bin after t - lag.
        dropout: probability with which an entry of the encoders' input, of the controller's input,
            or of the generator's output is dropped in training; never on a recurrent edge.
        state_clip: bound of |g_0|, and so of every |g_t| of a GRU.
        recursion: "fused" runs the recurrences by hand-written passes; "loop" gives the same
            numbers by the readable loop that defines them, can be differentiated twice, and serves
            generators that are not a GRU in any case.
        read_in: factory (input_dim) -> what the encoders read of the held-in neurons.
        encoder: factory (input_dim, latent_dim) -> per-trial encoder of the initial condition; the
            inferred inputs have their controller, whatever it is.
        generator: factory (input_dim, state_dim) -> generator.
        initial_condition_prior: factory (latent_dim) -> prior of the initial condition.
        inferred_input_prior: factory (latent_dim) -> prior of u.
        observation: factory (factor_dim, num_neurons) -> observation model.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule; None keeps the rate constant.
        validation_samples: posterior samples for each trial in validation.
    """

    dimension_argument: ClassVar[str] = "factor_dim"
    reads_inputs: ClassVar[bool] = True

    def __init__(
        self,
        spec: DataSpec,
        *,
        factor_dim: int = 20,
        generator_dim: int | None = 100,
        initial_condition_dim: int | None = 64,
        inferred_input_dim: int = 2,
        controller_dim: int = 64,
        controller_encoder_dim: int = 64,
        controller_lag: int = 1,
        causal: bool = False,
        dropout: float = 0.3,
        state_clip: float = 5.0,
        recursion: Recursion = "fused",
        encoder: Callable[[int, int], Encoder] = TrialGRU,
        generator: Callable[[int, int], Generator] = GRU,
        initial_condition_prior: Callable[[int], Prior] = LearnableNormal,
        inferred_input_prior: Callable[[int], Prior] = AR1,
        observation: Callable[[int, int], Observation] = Poisson,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
        optimizer: OptimizerFactory = partial(AdamW, lr=4e-3, weight_decay=0.1),
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
        generator_dim = factor_dim if generator_dim is None else generator_dim
        if initial_condition_dim is None:
            initial_condition_dim = generator_dim
        for name, size in (("factor_dim", factor_dim), ("generator_dim", generator_dim),
                           ("initial_condition_dim", initial_condition_dim)):  # fmt: skip
            if size < 1:
                raise InputError(f"{name} must be at least 1, got {size}")
        for name, size in (("inferred_input_dim", inferred_input_dim),
                           ("controller_lag", controller_lag)):  # fmt: skip
            if size < 0:
                raise InputError(f"{name} must be at least 0, got {size}")
        if recursion not in get_args(Recursion):
            raise InputError(f"recursion must be 'fused' or 'loop', got {recursion!r}")
        self.initial_condition_dim = initial_condition_dim
        self.inferred_input_dim = inferred_input_dim
        self.controller_lag = controller_lag
        self.state_clip = state_clip
        self.dropout = Dropout(dropout)
        self.read_in = read_in(spec.num_heldin)
        self.encoder = encoder(self.read_in.output_dim, initial_condition_dim)
        if causal and self.encoder.num_bins is None:
            raise InputError(
                "causal=True needs an encoder of the initial condition that reads only the first "
                "bins, e.g. encoder TrialGRU with num_bins 10"
            )
        self.initial_condition_prior = initial_condition_prior(initial_condition_dim)
        self.initial_state = nn.Linear(initial_condition_dim, generator_dim)
        self.inferred_input_prior: Prior | None = None
        self.controller_encoder: SequenceGRU | None = None
        encoding_dim = 0
        if inferred_input_dim > 0:
            self.inferred_input_prior = inferred_input_prior(inferred_input_dim)
            self.controller_encoder = SequenceGRU(
                self.read_in.output_dim, controller_encoder_dim, bidirectional=not causal
            )
            encoding_dim = self.controller_encoder.output_dim
        self.generator = generator(inferred_input_dim + spec.num_inputs, generator_dim)
        self.decoder = ControlledDecoder(
            self.generator,
            generator_dim=generator_dim,
            factor_dim=factor_dim,
            inferred_input_dim=inferred_input_dim,
            encoding_dim=encoding_dim,
            controller_dim=controller_dim,
            dropout=dropout,
            recursion=recursion,
        )
        self.observation = observation(factor_dim, spec.num_neurons)
        for module in self.modules():
            if isinstance(module, SequenceGRU):
                module.recursion = recursion

    def encode(self, batch: Batch) -> Encoding:
        """Return the posterior of ``initial_condition``, and e_t as ``controller_inputs``."""
        observed = self.read_in(self.dropout(self.standardized(batch)))
        # laid out by time, as the recurrences read it
        observed = observed.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        posterior = self.encoder(observed, batch)
        if len(posterior.batch_shape + posterior.event_shape) != 2:
            raise InputError(
                f"encoder {type(self.encoder).__name__} answers with one latent a time bin, but a "
                "SequentialVAE needs one a trial; use encoder TrialGRU"
            )
        encoding: Encoding = {"initial_condition": posterior}
        if self.controller_encoder is not None:
            lag = self.controller_lag
            states = self.controller_encoder(observed, batch.lengths, lag=lag).states
            encoding["controller_inputs"] = states
        return encoding

    def answer(self, encoding: Encoding, batch: Batch, num_samples: int = 1) -> Output:
        """Draw initial conditions and run the decoder from them; see the class."""
        posterior = encoding["initial_condition"]
        assert isinstance(posterior, Distribution)
        width = self.spec.bin_width
        prior = self.initial_condition_prior((self.initial_condition_dim,), width)
        sample = self.draw(posterior, num_samples)
        latents = {"initial_condition": Latent(posterior, prior, sample)}
        states = encoding.get("controller_inputs", batch.observed[..., :0, :0])
        assert isinstance(states, Tensor)
        return self._decode(latents, sample, states, batch)

    def emission_given(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]], batch: Batch
    ) -> Distribution:
        """Run the generator from a given ``initial_condition``, driven by ``inferred_inputs``."""
        state, inputs = self._initial_state(latents["initial_condition"]), batch.inputs
        unseen = batch.observed[..., :0, :0]
        observation = self.observation
        if self.inferred_input_dim == 0:
            return observation(self.decoder(state, unseen, inputs).factors)
        drive = latents["inferred_inputs"]
        still, one = drive.new_zeros(drive.shape[-1]), drive.new_ones(drive.shape[-1])
        path = self.decoder(
            state,
            unseen,
            inputs,
            prior_step=lambda *_: (still, one),  # so that what is drawn is the noise itself
            draws=DecoderDraws(drive.permute(2, 3, 0, 1)),
        )
        return observation(path.factors)

    def initialize(self, data: NeuralData) -> None:
        """Start at the training means; of several sessions with factors that they share."""
        super().initialize(data)
        begin_readout_aligned(self, data)

    def make_room(self, num_trials: int, num_encoded_bins: int) -> None:
        """Start anew what the encoder keeps for each trial."""
        self.encoder.make_room(num_trials)

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior.

        Args:
            num_trials: number of trials.
            inputs: external inputs of each trial; needed if the data have any.
        """
        spec = self.spec
        if inputs is None and spec.num_inputs > 0:
            raise InputError(
                f"inputs must be given to sample: the model has {spec.num_inputs} external inputs"
            )
        like = self.null_counts
        if inputs is None:
            inputs = like.new_zeros(num_trials, spec.num_time_bins, 0)
        empty = like.new_zeros(num_trials, 0, spec.num_heldin)
        target = like.new_zeros(num_trials, inputs.shape[1], spec.num_neurons)
        trial = torch.arange(num_trials, device=like.device)
        lengths = torch.full_like(trial, inputs.shape[1])
        batch = Batch(empty, empty.bool(), target, target, inputs, lengths, trial)
        prior = self.initial_condition_prior((self.initial_condition_dim,), spec.bin_width)
        sample = prior.rsample(torch.Size((1, num_trials)))
        latents = {"initial_condition": Latent(prior, prior, sample)}
        return self._decode(latents, sample, empty[..., :0], batch)

    def _initial_state(
        self, initial_condition: Float[Tensor, "sample batch latent"]
    ) -> Float[Tensor, "sample batch state"]:
        return self.initial_state(initial_condition).clamp(-self.state_clip, self.state_clip)

    def _decode(
        self,
        latents: dict[str, Latent],
        initial_condition: Float[Tensor, "sample batch latent"],
        encoding: Float[Tensor, "batch encoded_time encoding"],
        batch: Batch,
    ) -> Output:
        """Run the decoder from the initial condition and gather the output."""
        state = self._initial_state(initial_condition)
        num_bins, inferred_input_dim = batch.inputs.shape[1], self.inferred_input_dim
        if self.inferred_input_prior is None:
            path = self.decoder(state, encoding, batch.inputs)
        else:
            width = self.spec.bin_width
            prior = self.inferred_input_prior((num_bins, inferred_input_dim), width)
            path = self.decoder(
                state,
                encoding,
                batch.inputs,
                prior_step=partial(prior_conditional, prior),
                constant_inputs=self.objective.uses_score,
            )
            posterior = PathGaussian(path.input_mean, path.input_std, validate_args=False)
            latents["inferred_inputs"] = Latent(
                posterior, prior, path.inferred_inputs, batch.time_mask
            )
        return Output(latents, path.factors, self.observation(path.factors))

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        """State-to-state weights of generator and controller, for the optional L2 term."""
        kernels = list(self.generator.recurrent_kernels)
        return kernels + ([self.decoder.controller.weight_hh] if self.inferred_input_dim else [])
