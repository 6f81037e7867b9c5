"""The backward pass of the controlled decoder's recursion, written by hand, in steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.nn.controlled_weights import (
    ControlledWeights,
    input_sizes,
    masked_block,
    steps_or_none,
    unflatten,
    with_bias,
)
from seqvae.nn.gru_path import Steps, steps
from seqvae.nn.gru_products import CellBackward, add_product, flatten_steps
from seqvae.nn.products import products


class _SampleSlopes(NamedTuple):
    """The way back through u = mean + std * noise and std = min_std + softplus(raw std), by step.

    With p_t the gradient that reaches u_t through the generator, that to [mean, raw std] is
    [p_t + from_mean, p_t * by_raw + from_raw].
    """

    by_raw: Steps
    from_mean: Steps
    from_raw: Steps

    @classmethod
    def of(
        cls, noise: Tensor, std: Tensor, min_std: float, grads: tuple[Tensor, Tensor, Tensor]
    ) -> _SampleSlopes:
        """Return them for gradients that come from outside, to inferred inputs, mean and std."""
        to_inferred, to_mean, to_std = grads
        slope = torch.expm1(min_std - std).neg_()  # d std / d raw = 1 - exp(min_std - std)
        by_raw = noise * slope
        from_raw = torch.addcmul(to_std * slope, to_inferred, by_raw)
        return cls(steps(by_raw), steps(to_inferred + to_mean), steps(from_raw))


class _BlockGradients:
    """The gradients to factors and posterior of one block of steps, and their parts by step."""

    def __init__(self, num_steps: int, factors: Tensor, noise: Tensor) -> None:
        self.factors = factors.new_empty(num_steps, *factors.shape[1:])
        self.posterior = noise.new_empty(num_steps, 2 * noise.shape[1], noise.shape[2])
        self.to_factors, self.to_posterior = steps(self.factors), steps(self.posterior)
        self.to_mean, self.to_raw = (steps(part) for part in self.posterior.chunk(2, dim=1))


class WayBack:
    """The backward pass: for each block of steps ``walk``, then ``collect``; at last ``arrive``.

    Step by step goes only what waits for the step after: the gradients to states, posterior and
    factors. All gradients to weights and sequences are collected for a block at once.

    Args:
        ctx: what the forward pass has saved.
        grads: to factors, inferred inputs, their means and their standard deviations.
        grad_final: to the last state of the generator.
    """

    def __init__(
        self, ctx: Any, grads: tuple[Tensor, Tensor, Tensor, Tensor], grad_final: Tensor
    ) -> None:
        noise, self.encoding_mask, self.factor_mask, self.state_mask, *saved = ctx.saved_tensors
        self.encoding, self.external, factors, self.inferred, std, *flat = saved
        self.controller, self.generator = ctx.lease.buffers
        self.weights = weights = unflatten(flat)
        # the cells
        controller_sizes, generator_sizes = input_sizes(
            self.encoding, factors, noise, self.external
        )
        self.control = CellBackward(self.controller, weights.controller, controller_sizes)
        self.generate = CellBackward(self.generator, weights.generator, generator_sizes)
        (self.to_controller,) = self.controller.slopes.cell_gradients
        (self.to_generator,) = self.generator.slopes.cell_gradients
        self.to_controller.zero_()
        self.to_generator.copy_(grad_final)
        # the sample and the readouts
        grad_factors, to_inferred, to_mean, to_std = grads
        self.sample = _SampleSlopes.of(noise, std, ctx.min_std, (to_inferred, to_mean, to_std))
        self.from_factors = steps(grad_factors.contiguous())
        self.factors_weight_t = weights.factors.t().contiguous()
        self.posterior_weight_t = weights.posterior.t().contiguous()
        num_factors, state_dim = weights.factors.shape
        self.state_products = products(state_dim, num_factors, noise.shape[2], like=factors)
        # what is passed on from step to step, and from block to block
        self.through = torch.empty_like(noise[0])
        self.to_masked = torch.empty_like(self.to_generator)
        self.carried = self.from_factors[-1].clone()
        self.block = _BlockGradients(self.controller.slopes.block, factors, noise)
        # the values on which gradients of weights depend, and those gradients
        self.states = self.generator.states[1:, 0]
        self.initial_state = self.generator.cell_states[0][0]
        self.before = torch.cat([(weights.factors @ self.initial_state)[None], factors[:-1]])
        self.grad_encoding = torch.empty_like(self.encoding) if ctx.needs_input_grad[6] else None
        self.grad_external = torch.empty_like(self.external) if ctx.needs_input_grad[7] else None
        self.grad_factors_weight = torch.zeros_like(weights.factors)
        self.grad_posterior_weight = torch.zeros_like(with_bias(weights))

    def walk(self, block: slice) -> None:
        """Go back through a block: factors <- generator <- sample <- posterior <- controller."""
        factor_mask, state_mask = map(steps_or_none, (self.factor_mask, self.state_mask))
        to_factors, to_posterior = self.block.to_factors, self.block.to_posterior
        num_steps = block.stop - block.start
        to_factors[num_steps - 1].copy_(self.carried)
        for i, t in zip(range(num_steps)[::-1], range(block.stop)[::-1], strict=False):
            self._through_factors(to_factors[i], None if state_mask is None else state_mask[t])
            self.generator.slopes.step(i, t)
            self.generate.to_state(i)
            self.generate.to_feedback(i, out=self.through)
            self._through_sample(i, t)
            self.to_controller.addmm_(self.posterior_weight_t, to_posterior[i])
            self.controller.slopes.step(i, t)
            self.control.to_state(i)
            previous = self.control.to_feedback(i, out=to_factors[i - 1] if i > 0 else self.carried)
            if factor_mask is not None:
                previous.mul_(factor_mask[t])
            if t > 0:
                previous.add_(self.from_factors[t - 1])

    def _through_factors(self, to_factors: Tensor, mask: Tensor | None) -> None:
        """Add to the generator's state what reaches it through the factors read from it."""
        if mask is None:
            self.state_products.add(self.to_generator, self.factors_weight_t, to_factors)
        else:
            self.state_products.write(self.to_masked, self.factors_weight_t, to_factors)
            self.to_generator.addcmul_(self.to_masked, mask)

    def _through_sample(self, i: int, t: int) -> None:
        """Bring what reaches u_t to the mean and the raw std that it was drawn with."""
        by_raw, from_mean, from_raw = self.sample
        torch.add(self.through, from_mean[t], out=self.block.to_mean[i])
        torch.addcmul(from_raw[t], self.through, by_raw[t], out=self.block.to_raw[i])

    def collect(self, block: slice) -> None:
        """Add the share of a block to the gradients of weights, and put those of the sequences."""
        num_steps = block.stop - block.start
        seen = masked_block(self.states, self.state_mask, block)
        _add_block(self.grad_factors_weight, self.block.factors[:num_steps], seen)
        after = self.controller.states_one[1:, 0][block]
        _add_block(self.grad_posterior_weight, self.block.posterior[:num_steps], after)
        to_encoding = None if self.grad_encoding is None else self.grad_encoding[block]
        to_external = None if self.grad_external is None else self.grad_external[block]
        known = masked_block(self.encoding, self.encoding_mask, block)
        seen = masked_block(self.before, self.factor_mask, block)
        self.control.add_block(block.start, known, seen, to_sequence=to_encoding)
        self.generate.add_block(
            block.start, self.external[block], self.inferred[block], to_sequence=to_external
        )
        if to_encoding is not None and self.encoding_mask is not None:
            to_encoding.mul_(self.encoding_mask[block])

    def arrive(self) -> Tensor:
        """Take in the factors before the first step; return the gradient to the initial state."""
        self.to_generator.addmm_(self.factors_weight_t, self.carried)
        self.grad_factors_weight.addmm_(self.carried, self.initial_state.t())
        return self.to_generator.clone()

    def gradients(self) -> ControlledWeights:
        """Return the gradients to the weights."""
        return ControlledWeights(
            self.control.gradients(),
            self.generate.gradients(),
            self.grad_posterior_weight[:, :-1],
            self.grad_posterior_weight[:, -1],
            self.grad_factors_weight,
            self.to_controller.sum(1),
        )


def _add_block(
    total: Float[Tensor, "left right"],
    left: Float[Tensor, "time left columns"],
    right: Float[Tensor, "time right columns"],
) -> None:
    """Add sum_t left_t @ right_t.T to ``total``."""
    add_product(total, flatten_steps(left), flatten_steps(right))
