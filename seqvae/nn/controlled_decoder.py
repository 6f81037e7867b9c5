"""The recursion of the sequential VAE's decoder: controller, inferred input, generator, factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from seqvae.nn.recurrent import gru_step, open_update_gates

Conditional = Callable[[int, "Tensor | None"], "tuple[Tensor, Tensor]"]


class DecoderPath(NamedTuple):
    """One run of the recursion for every sample and trial.

    ``input_mean`` and ``input_std`` are the conditionals that the steps of ``inferred_inputs``
    were drawn from, along this very path.
    """

    factors: Float[Tensor, "sample batch time factor"]
    inferred_inputs: Float[Tensor, "sample batch time inferred"]
    input_mean: Float[Tensor, "sample batch time inferred"]
    input_std: Float[Tensor, "sample batch time inferred"]


class ControlledDecoder(nn.Module):
    """Runs the generator, driven by inputs that a controller infers from data and factors.

    For t = 1..T, with e_t the controller's encoding of the data and v_t the external inputs:
    c_t = GRU([e_t, f_{t-1}], c_{t-1});  u_t ~ N(mean(c_t), std(c_t)^2);
    g_t = generator([u_t, v_t], g_{t-1});  f_t = W g_t, rows of W of unit norm.
    Where there is no e_t (forecast, or sampling from the prior) u_t ~ p(u_t | u_{t-1}).
    Dropout acts on the controller's input and on the generator's output, never on a recurrent edge.

    Args:
        generator: one step of the dynamics, (inputs, state) -> state.
        generator_dim: size of the generator's state.
        factor_dim: number of factors.
        inferred_input_dim: size of u; 0 removes the controller.
        encoding_dim: size of e_t.
        controller_dim: size of the controller's state.
        dropout: probability with which a unit is dropped in training.
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
        initial_std: float = 0.3,
        min_std: float = 1e-3,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.factors = nn.Linear(generator_dim, factor_dim, bias=False)
        self.inferred_input_dim = inferred_input_dim
        self.min_std = min_std
        self.dropout = nn.Dropout(dropout)
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
        noise: Float[Tensor, "sample batch time inferred"],
        *,
        prior_step: Conditional | None = None,
    ) -> DecoderPath:
        """Run the recursion over all time bins of ``external``.

        Args:
            initial_state: g_0.
            encoding: e_t; later bins are driven by the prior. No bins: all by the prior.
            external: external inputs v_t (last axis of size 0 if there are none).
            noise: standard normal draws, one for each u_t.
            prior_step: t and u_{t-1} (None at the first bin) -> mean and std of p(u_t | u_{t-1});
                None if there is no u.
        """
        kernel = functional.normalize(self.factors.weight, dim=-1)
        state = initial_state
        sampled = state.shape[:2]
        num_encoded = encoding.shape[1] if self.inferred_input_dim else 0
        if num_encoded:
            from_encoding, from_factors = self.controller.weight_ih.split(
                [encoding.shape[-1], kernel.shape[0]], dim=1
            )
            # unbind, not projected[:, t]: the gradient of T slices would be T full tensors
            projected = functional.linear(
                self.dropout(encoding), from_encoding, self.controller.bias_ih
            ).unbind(dim=1)
            controller = self.controller_start.expand(*sampled, -1)
            factors = functional.linear(state, kernel)
        paths: list[list[Tensor]] = [[], [], [], []]
        drawn = None
        for t in range(external.shape[1]):
            if t < num_encoded:
                controller = gru_step(
                    projected[t] + functional.linear(self.dropout(factors), from_factors),
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
                mean = std = noise[:, :, t]
            drawn = mean + std * noise[:, :, t]
            drive = torch.cat([drawn, external[:, t].expand(*sampled, -1)], dim=-1)
            state = self.generator(drive, state)
            factors = functional.linear(self.dropout(state), kernel)
            for path, value in zip(paths, (factors, drawn, mean, std), strict=True):
                path.append(value)
        return DecoderPath(*(torch.stack(path, dim=2) for path in paths))
