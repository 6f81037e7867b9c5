"""The decoder's recursion under a controller, with its backward pass written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from seqvae.nn.gru_path import GRUPath, Steps, steps
from seqvae.nn.gru_products import (
    CellBackward,
    CellForward,
    CellWeights,
    InputSizes,
    add_product,
    flatten_steps,
)
from seqvae.nn.products import products
from seqvae.nn.workspace import Lease, Workspace, refuse_second_derivatives


class ControlledBuffers(NamedTuple):
    """What the recursion keeps for its backward pass, beside its results."""

    controller: GRUPath
    generator: GRUPath


class ControlledWeights(NamedTuple):
    """The parameters of the recursion.

    Attributes:
        controller: cell whose input is [encoding, factors].
        generator: cell whose input is [inferred input, external inputs].
        posterior: weight of [mean, raw std] of the inferred input.
        posterior_bias: its bias.
        factors: readout of the factors.
        start: first state of the controller.
    """

    controller: CellWeights
    generator: CellWeights
    posterior: Float[Tensor, "two_inferred controller"]
    posterior_bias: Float[Tensor, " two_inferred"]
    factors: Float[Tensor, "factor generator"]
    start: Float[Tensor, " controller"]


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
    flat = _flatten(weights)
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
        weights = _unflatten(flat)
        factors_weight, posterior_weight = weights.factors, _with_bias(weights)
        num_steps, num_inferred, columns = noise.shape
        factors = noise.new_empty(num_steps, len(factors_weight), columns)
        posterior = noise.new_empty(num_steps, 2 * num_inferred, columns)
        inferred, std = torch.empty_like(noise), torch.empty_like(noise)
        controller_sizes, generator_sizes = _sizes(encoding, factors, noise, external)
        control = CellForward(controller, weights.controller, controller_sizes)
        generate = CellForward(generator, weights.generator, generator_sizes)
        noise_t, factors_t = steps(noise), steps(factors)
        posterior_t, inferred_t = steps(posterior), steps(inferred)
        mean_t, raw_t = (steps(part) for part in posterior.split(num_inferred, dim=1))
        std_t = steps(std)
        factor_mask_t, state_mask_t = _steps_or_none(factor_mask), _steps_or_none(state_mask)
        controller.states[0], generator.states[0] = weights.start[:, None], initial_state
        num_factors, state_dim = factors_weight.shape
        write_factors = products(num_factors, state_dim, columns, like=factors).write
        last, masked = factors_weight @ initial_state, torch.empty_like(factors_t[0])
        masked_state = torch.empty_like(initial_state)
        for block in controller.blocks():
            control.load(block.start, _masked(encoding, encoding_mask, block))
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
        noise, encoding_mask, factor_mask, state_mask, *saved = ctx.saved_tensors
        encoding, external, factors, inferred, std, *flat = saved
        controller, generator = ctx.lease.buffers
        slopes, generator_slopes = controller.slopes, generator.slopes
        weights = _unflatten(flat)
        factors_weight_t = weights.factors.t().contiguous()
        posterior_weight_t = weights.posterior.t().contiguous()
        controller_sizes, generator_sizes = _sizes(encoding, factors, noise, external)
        control = CellBackward(controller, weights.controller, controller_sizes)
        generate = CellBackward(generator, weights.generator, generator_sizes)
        (to_controller,), (to_generator,) = slopes.cell_gradients, generator_slopes.cell_gradients
        to_controller.zero_()
        to_generator.copy_(grad_final)
        # With p_t the gradient that reaches u_t through the generator, that to [mean, raw std] is
        # [p_t + from_mean, p_t * by_raw + from_raw]; d std / d raw = 1 - exp(min_std - std).
        slope = torch.expm1(ctx.min_std - std).neg_()
        by_raw = noise * slope
        from_mean = steps(grad_inferred + grad_mean)
        from_raw = steps(torch.addcmul(grad_std * slope, grad_inferred, by_raw))
        by_raw_t, from_factors = steps(by_raw), steps(grad_factors.contiguous())
        factor_mask_t, state_mask_t = _steps_or_none(factor_mask), _steps_or_none(state_mask)
        # the gradients to factors and posterior of one block of steps
        block_factors = factors.new_empty(slopes.block, *factors.shape[1:])
        block_posterior = noise.new_empty(slopes.block, 2 * noise.shape[1], noise.shape[2])
        to_factors, to_posterior = steps(block_factors), steps(block_posterior)
        to_mean, to_raw = (steps(part) for part in block_posterior.chunk(2, dim=1))
        num_factors, state_dim = weights.factors.shape
        state_products = products(state_dim, num_factors, noise.shape[2], like=factors)
        through, to_masked = torch.empty_like(noise[0]), torch.empty_like(to_generator)
        carried = from_factors[-1].clone()
        states, initial_state = generator.states[1:, 0], generator.cell_states[0][0]
        before = torch.cat([(weights.factors @ initial_state)[None], factors[:-1]])
        grad_encoding = torch.empty_like(encoding) if ctx.needs_input_grad[6] else None
        grad_external = torch.empty_like(external) if ctx.needs_input_grad[7] else None
        grad_factors_weight = torch.zeros_like(weights.factors)
        grad_posterior_weight = torch.zeros_like(_with_bias(weights))
        for block, _ in zip(slopes.blocks(), generator_slopes.blocks(), strict=True):
            num_steps = block.stop - block.start
            to_factors[num_steps - 1].copy_(carried)
            for i, t in zip(range(num_steps)[::-1], range(block.stop)[::-1], strict=False):
                if state_mask_t is None:
                    state_products.add(to_generator, factors_weight_t, to_factors[i])
                else:
                    state_products.write(to_masked, factors_weight_t, to_factors[i])
                    to_generator.addcmul_(to_masked, state_mask_t[t])
                generator_slopes.step(i, t)
                generate.to_state(i)
                generate.to_own(i, out=through)
                torch.add(through, from_mean[t], out=to_mean[i])
                torch.addcmul(from_raw[t], through, by_raw_t[t], out=to_raw[i])
                to_controller.addmm_(posterior_weight_t, to_posterior[i])
                slopes.step(i, t)
                control.to_state(i)
                previous = control.to_own(i, out=to_factors[i - 1] if i > 0 else carried)
                if factor_mask_t is not None:
                    previous.mul_(factor_mask_t[t])
                if t > 0:
                    previous.add_(from_factors[t - 1])
            seen = _masked(states, state_mask, block)
            _add_block(grad_factors_weight, block_factors[:num_steps], seen)
            after = controller.states_one[1:, 0][block]
            _add_block(grad_posterior_weight, block_posterior[:num_steps], after)
            to_encoding = None if grad_encoding is None else grad_encoding[block]
            to_external = None if grad_external is None else grad_external[block]
            known = _masked(encoding, encoding_mask, block)
            seen = _masked(before, factor_mask, block)
            control.add_block(block.start, known, seen, to_known=to_encoding)
            generate.add_block(block.start, external[block], inferred[block], to_known=to_external)
            if to_encoding is not None and encoding_mask is not None:
                to_encoding.mul_(encoding_mask[block])
        to_generator.addmm_(factors_weight_t, carried)
        grad_factors_weight.addmm_(carried, initial_state.t())
        ctx.lease.release()
        gradients = ControlledWeights(
            control.gradients(),
            generate.gradients(),
            grad_posterior_weight[:, :-1],
            grad_posterior_weight[:, -1],
            grad_factors_weight,
            to_controller.sum(1),
        )
        inputs = (grad_encoding, grad_external, to_generator.clone())
        return (*(None,) * 6, *inputs, *_flatten(gradients))


def _sizes(
    encoding: Tensor, factors: Tensor, inferred: Tensor, external: Tensor
) -> tuple[InputSizes, InputSizes]:
    """Return the input sizes of controller and generator."""
    return (
        InputSizes(known=encoding.shape[1], own=factors.shape[1]),
        InputSizes(known=external.shape[1], own=inferred.shape[1], known_last=True),
    )


def _add_block(
    total: Float[Tensor, "left right"],
    left: Float[Tensor, "time left columns"],
    right: Float[Tensor, "time right columns"],
) -> None:
    """Add sum_t left_t @ right_t.T to ``total``."""
    add_product(total, flatten_steps(left), flatten_steps(right))


def _masked(
    values: Float[Tensor, "time _ _"], mask: Float[Tensor, "time _ _"] | None, block: slice
) -> Float[Tensor, "steps _ _"]:
    """Return the values of a block of steps that dropout leaves."""
    return values[block] if mask is None else values[block] * mask[block]


def _steps_or_none(mask: Tensor | None) -> Steps | None:
    return None if mask is None else steps(mask)


def _with_bias(weights: ControlledWeights) -> Float[Tensor, "two_inferred controller_one"]:
    """Return the weight of the posterior with its bias as one more column."""
    return torch.cat([weights.posterior, weights.posterior_bias[:, None]], dim=1)


def _flatten(weights: ControlledWeights) -> list[Tensor]:
    return [*weights.controller, *weights.generator, *weights[2:]]


def _unflatten(flat: Sequence[Tensor]) -> ControlledWeights:
    return ControlledWeights(CellWeights(*flat[:4]), CellWeights(*flat[4:8]), *flat[8:])
