"""The recursion of the sequential VAE's decoder: controller, inferred input, generator, factors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from seqvae.compute import noise
from seqvae.nn.controlled_path import ControlledWeights
from seqvae.nn.decoder_path import Conditional, DecoderDraws, DecoderPath
from seqvae.nn.dropout import dropout_mask
from seqvae.nn.fused_decoder import FusedDecoder
from seqvae.nn.gru_products import CellWeights
from seqvae.nn.recurrent import Recursion, gru_step, open_update_gates


class ControlledDecoder(nn.Module):
    """Runs the generator, driven by inputs that a controller infers from data and factors.

    For t = 1..T, with e_t the controller's encoding of the data and v_t the external inputs:
    c_t = GRU([e_t, f_{t-1}], c_{t-1});  u_t ~ N(mean(c_t), std(c_t)^2);
    g_t = generator([u_t, v_t], g_{t-1});  f_t = W g_t, rows of W of unit norm.
    Where there is no e_t (forecast, or sampling from the prior) u_t ~ p(u_t | u_{t-1}).
    Dropout acts on the controller's input and on the generator's output, never on a recurrent edge.

    The recursion exists twice. ``loop`` is the definition, readable and differentiable any number
    of times; ``fused`` gives the same numbers faster, and needs a generator that is a GRU.

    Args:
        generator: one step of the dynamics, (inputs, state) -> state; where it is nothing but a
            GRU cell its attribute ``gru_cell`` holds it.
        generator_dim: size of the generator's state.
        factor_dim: number of factors.
        inferred_input_dim: size of u; 0 removes the controller.
        encoding_dim: size of e_t.
        controller_dim: size of the controller's state.
        dropout: probability with which a unit is dropped in training.
        recursion: "fused" or "loop".
        initial_std, min_std: standard deviation of u before learning, and its floor.
    """

    def __init__(
        self,
        generator: nn.Module,
        *,
        generator_dim: int,
        factor_dim: int,
        inferred_input_dim: int,
        encoding_dim: int,
        controller_dim: int,
        dropout: float,
        recursion: Recursion = "fused",
        initial_std: float = 0.3,
        min_std: float = 1e-3,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.factors = nn.Linear(generator_dim, factor_dim, bias=False)
        self.inferred_input_dim = inferred_input_dim
        self.min_std = min_std
        self.dropout = dropout
        self.recursion = recursion
        self._fused = FusedDecoder(min_std)
        if inferred_input_dim == 0:
            return
        self.controller = nn.GRUCell(encoding_dim + factor_dim, controller_dim)
        open_update_gates(self.controller)
        self.controller_start = nn.Parameter(torch.zeros(controller_dim))
        self.posterior = nn.Linear(controller_dim, 2 * inferred_input_dim)
        with torch.no_grad():
            self.posterior.weight[inferred_input_dim:] *= 0.1
            self.posterior.bias[:inferred_input_dim] = 0.0
            self.posterior.bias[inferred_input_dim:] = math.log(math.expm1(initial_std - min_std))

    def forward(
        self,
        initial_state: Float[Tensor, "sample batch state"],
        encoding: Float[Tensor, "batch encoded_time encoding"],
        external: Float[Tensor, "batch time input"],
        *,
        prior_step: Conditional | None = None,
        draws: DecoderDraws | None = None,
        constant_inputs: bool = False,
    ) -> DecoderPath:
        """Run the recursion over all time bins of ``external``.

        Args:
            initial_state: g_0.
            encoding: e_t; later bins are driven by the prior. No bins: all by the prior.
            external: external inputs v_t (last axis of size 0 if there are none).
            prior_step: t and u_{t-1} (None at the first bin) -> mean and std of p(u_t | u_{t-1});
                None if there is no u.
            draws: noise and dropout masks; None draws them.
            constant_inputs: no gradient passes through the sampled u_t, as the score function
                wants it; by the loop.
        """
        if self.inferred_input_dim == 0:
            encoding = encoding[:, :0]
        draws = self.draw(initial_state, encoding, external) if draws is None else draws
        kernel = functional.normalize(self.factors.weight, dim=-1)
        cell = getattr(self.generator, "gru_cell", None)
        run = (initial_state, encoding, external, draws, kernel, prior_step)
        if self.recursion == "loop" or cell is None or constant_inputs:
            return self._loop(*run, constant_inputs)
        return self._run_fused(*run, cell)

    def draw(
        self,
        initial_state: Float[Tensor, "sample batch state"],
        encoding: Float[Tensor, "batch encoded_time encoding"],
        external: Float[Tensor, "batch time input"],
    ) -> DecoderDraws:
        """Draw the noise and, in training, the dropout masks of a run of ``forward``."""
        like = self.factors.weight
        num_samples, num_trials, state_dim = initial_state.shape
        num_encoded, num_bins = encoding.shape[1], external.shape[1]
        shape = (num_samples, num_trials, num_bins, self.inferred_input_dim)
        white = noise.normal(shape, like=like, axis=1, trials_inner=True).permute(2, 3, 0, 1)
        if not self.training or self.dropout == 0:
            return DecoderDraws(white)

        def mask(*shape: int) -> Tensor:
            drawn = dropout_mask(
                shape, self.dropout, like=like, trial_axis=len(shape) - 3, trials_inner=True
            )
            return drawn.permute(-2, -1, *range(len(shape) - 2))

        state_mask = mask(num_samples, num_trials, num_bins, state_dim)
        if num_encoded == 0:
            return DecoderDraws(white, state_mask=state_mask)
        return DecoderDraws(
            white,
            mask(num_trials, num_encoded, encoding.shape[2]),
            mask(num_samples, num_trials, num_encoded, like.shape[0]),
            state_mask,
        )

    def _loop(
        self,
        initial_state: Float[Tensor, "sample batch state"],
        encoding: Float[Tensor, "batch encoded_time encoding"],
        external: Float[Tensor, "batch time input"],
        draws: DecoderDraws,
        kernel: Float[Tensor, "factor state"],
        prior_step: Conditional | None,
        constant_inputs: bool,
    ) -> DecoderPath:
        """Run the recursion as it is defined."""
        state = initial_state
        sampled = state.shape[:2]
        num_encoded = encoding.shape[1]
        white = draws.noise.permute(0, 2, 3, 1)
        if draws.encoding_mask is not None:
            encoding = encoding * draws.encoding_mask.permute(2, 0, 1)
        if num_encoded:
            from_encoding, from_factors = self.controller.weight_ih.split(
                [encoding.shape[-1], kernel.shape[0]], dim=1
            )
            # unbind, not projected[:, t]: the gradient of T slices would be T full tensors
            projected = functional.linear(encoding, from_encoding, self.controller.bias_ih).unbind(
                dim=1
            )
            controller = self.controller_start.expand(*sampled, -1)
            factors = functional.linear(state, kernel)
        paths: list[list[Tensor]] = [[], [], [], []]
        drawn = None
        for t in range(external.shape[1]):
            if t < num_encoded:
                controller = gru_step(
                    projected[t]
                    + functional.linear(_masked(factors, draws.factor_mask, t), from_factors),
                    functional.linear(
                        controller, self.controller.weight_hh, self.controller.bias_hh
                    ),
                    controller,
                )
                mean, raw_std = self.posterior(controller).chunk(2, dim=-1)
                std = self.min_std + functional.softplus(raw_std)
            elif prior_step is not None:
                mean, std = (part.expand(*sampled, -1) for part in prior_step(t, drawn))
            else:
                mean = std = white[t]
            drawn = mean + std * white[t]
            drawn = drawn.detach() if constant_inputs else drawn
            drive = torch.cat([drawn, external[:, t].expand(*sampled, -1)], dim=-1)
            state = self.generator(drive, state)
            factors = functional.linear(_masked(state, draws.state_mask, t), kernel)
            for path, value in zip(paths, (factors, drawn, mean, std), strict=True):
                path.append(value)
        return DecoderPath(*(torch.stack(path, dim=2) for path in paths))

    def _run_fused(
        self,
        initial_state: Float[Tensor, "sample batch state"],
        encoding: Float[Tensor, "batch encoded_time encoding"],
        external: Float[Tensor, "batch time input"],
        draws: DecoderDraws,
        kernel: Float[Tensor, "factor state"],
        prior_step: Conditional | None,
        cell: nn.GRUCell,
    ) -> DecoderPath:
        """Run the fused recursion, in full precision whatever autocast asks for."""
        generator, controlled = CellWeights.of(cell), None
        if self.inferred_input_dim:
            controlled = ControlledWeights(
                CellWeights.of(self.controller),
                generator,
                self.posterior.weight,
                self.posterior.bias,
                kernel,
                self.controller_start,
            )
        with torch.autocast(kernel.device.type, enabled=False):
            return self._fused(
                *(part.to(kernel.dtype) for part in (initial_state, encoding, external)),
                draws=draws,
                prior_step=prior_step,
                generator=generator,
                factors=kernel,
                controlled=controlled,
            )


def _masked(values: Tensor, mask: Tensor | None, t: int) -> Tensor:
    return values if mask is None else values * mask[t].permute(1, 2, 0)
