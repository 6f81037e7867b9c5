"""The decoder's recursion under a controller, with its backward pass written by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seqvae.nn.controlled_backward import WayBack
from seqvae.nn.controlled_weights import (
    ControlledBuffers,
    ControlledWeights,
    flatten,
    input_sizes,
    masked_block,
    steps_or_none,
    unflatten,
    with_bias,
)
from seqvae.nn.gru_path import GRUPath, steps
from seqvae.nn.gru_products import CellForward
from seqvae.nn.products import products
from seqvae.nn.workspace import Lease, Workspace, refuse_second_derivatives


class ControlledPath(NamedTuple):
    """The results of the recursion, feature-major; columns are sample x trial."""

    factors: Float[Tensor, "time factor columns"]
    inferred_inputs: Float[Tensor, "time inferred columns"]
    input_mean: Float[Tensor, "time inferred columns"]
    input_std: Float[Tensor, "time inferred columns"]
    final: Float[Tensor, "generator columns"]


def controlled_path(
    encoding: Float[Tensor, "time encoding trial"],
    external: Float[Tensor, "time input trial"],
    noise: Float[Tensor, "time inferred columns"],
    *,
    initial_state: Float[Tensor, "generator columns"],
    weights: ControlledWeights,
    min_std: float,
    encoding_mask: Float[Tensor, "time encoding trial"] | None,
    factor_mask: Float[Tensor, "time factor columns"] | None,
    state_mask: Float[Tensor, "time generator columns"] | None,
    workspace: Workspace[ControlledBuffers],
) -> ControlledPath:
    """Run controller -> inferred input -> generator -> factors -> controller over all steps.

    The equations are those of ``ControlledDecoder``, whose loop defines them. Not differentiable
    twice.

    Args:
        encoding: e_t, the same for all samples of a trial.
        external: v_t, likewise; the middle axis may be of size 0.
        noise: standard normal draws, one for each u_t.
        initial_state: g_0.
        weights: the parameters.
        min_std: floor of the standard deviation of u.
        encoding_mask: dropout of the encoding; None: no dropout.
        factor_mask: dropout of the factors on their way to the controller.
        state_mask: dropout of the generator's state on its way to the factors.
        workspace: where the buffers are kept.
    """
    flat = flatten(weights)
    leaves = (encoding, external, initial_state, *flat)
    keep = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    num_steps, like, generator = noise.shape[0], initial_state, initial_state.shape
    controller = (weights.start.shape[0], generator[1])
    lease = workspace.lease(
        (num_steps, controller, generator, keep, like.dtype, like.device),
        lambda: ControlledBuffers(
            GRUPath(num_steps, 1, *controller, like=like, keep=keep),
            GRUPath(num_steps, 1, *generator, like=like, keep=keep),
        ),
    )
    draws = (noise, encoding_mask, factor_mask, state_mask)
    return ControlledPath(
        *_ControlledPath.apply(lease, min_std, *draws, encoding, external, initial_state, *flat)
    )


class _ControlledPath(torch.autograd.Function):
    """The two passes of ``controlled_path``; ``flat`` holds the parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        lease: Lease[ControlledBuffers],
        min_std: float,
        noise: Tensor,
        encoding_mask: Tensor | None,
        factor_mask: Tensor | None,
        state_mask: Tensor | None,
        encoding: Tensor,
        external: Tensor,
        initial_state: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        controller, generator = lease.buffers
        weights = unflatten(flat)
        factors_weight, posterior_weight = weights.factors, with_bias(weights)
        num_steps, num_inferred, columns = noise.shape
        factors = noise.new_empty(num_steps, len(factors_weight), columns)
        posterior = noise.new_empty(num_steps, 2 * num_inferred, columns)
        inferred, std = torch.empty_like(noise), torch.empty_like(noise)
        controller_sizes, generator_sizes = input_sizes(encoding, factors, noise, external)
        control = CellForward(controller, weights.controller, controller_sizes)
        generate = CellForward(generator, weights.generator, generator_sizes)
        noise_t, factors_t = steps(noise), steps(factors)
        posterior_t, inferred_t = steps(posterior), steps(inferred)
        mean_t, raw_t = (steps(part) for part in posterior.split(num_inferred, dim=1))
        std_t = steps(std)
        factor_mask_t, state_mask_t = steps_or_none(factor_mask), steps_or_none(state_mask)
        controller.states[0], generator.states[0] = weights.start[:, None], initial_state
        num_factors, state_dim = factors_weight.shape
        write_factors = products(num_factors, state_dim, columns, like=factors).write
        last, masked = factors_weight @ initial_state, torch.empty_like(factors_t[0])
        masked_state = torch.empty_like(initial_state)
        for block in controller.blocks():
            control.load(block.start, masked_block(encoding, encoding_mask, block))
            generate.load(block.start, external[block])
            for t in range(block.start, block.stop):
                if factor_mask_t is not None:
                    last = torch.mul(last, factor_mask_t[t], out=masked)
                control.step(t, last)
                controller.advance(t)
                torch.mm(posterior_weight, controller.cell_states_one[0][t + 1], out=posterior_t[t])
                torch.add(functional.softplus(raw_t[t]), min_std, out=std_t[t])
                torch.addcmul(mean_t[t], std_t[t], noise_t[t], out=inferred_t[t])
                generate.step(t, inferred_t[t])
                generator.advance(t)
                state = generator.cell_states[0][t + 1]
                if state_mask_t is not None:
                    state = torch.mul(state, state_mask_t[t], out=masked_state)
                last = factors_t[t]
                write_factors(last, factors_weight, state)
        if controller.slopes is None:
            lease.release()
        else:
            ctx.lease, ctx.min_std = lease, min_std
            draws = (noise, encoding_mask, factor_mask, state_mask)
            ctx.save_for_backward(*draws, encoding, external, factors, inferred, std, *flat)
        mean = posterior[:, :num_inferred].clone()
        return factors, inferred, mean, std, generator.cell_states[0][-1].clone()

    @staticmethod
    def backward(
        ctx: Any,
        grad_factors: Tensor,
        grad_inferred: Tensor,
        grad_mean: Tensor,
        grad_std: Tensor,
        grad_final: Tensor,
    ) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        controller, generator = ctx.lease.buffers
        way = WayBack(ctx, (grad_factors, grad_inferred, grad_mean, grad_std), grad_final)
        for block, _ in zip(controller.slopes.blocks(), generator.slopes.blocks(), strict=True):
            way.walk(block)
            way.collect(block)
        to_initial_state = way.arrive()
        ctx.lease.release()
        inputs = (way.grad_encoding, way.grad_external, to_initial_state)
        return (*(None,) * 6, *inputs, *flatten(way.gradients()))
