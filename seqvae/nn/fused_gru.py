"""A GRU over a sequence whose inputs are known, with its backward pass written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.nn.gru_path import GRUPath, Steps, steps
from seqvae.nn.gru_products import CellBackward, CellForward, CellWeights, InputSizes
from seqvae.nn.workspace import Lease, Workspace, refuse_second_derivatives


class GRUStates(NamedTuple):
    """States of one or two directions, feature-major.

    Attributes:
        states: the state at each bin (or ``lag`` bins before it, for the second direction after
            it), in the order of time, forward direction first; None if only the final ones were
            asked for.
        final: the state of each direction after its last step.
    """

    states: Float[Tensor, "time direction_hidden columns"] | None
    final: Float[Tensor, "direction hidden columns"]


def fused_gru(
    inputs: Float[Tensor, "time input columns"],
    initial: Float[Tensor, "direction hidden columns"],
    weights: Sequence[CellWeights],
    *,
    workspace: Workspace[GRUPath],
    padding: Bool[Tensor, "time columns"] | None = None,
    lag: int = 0,
    final_only: bool = False,
) -> GRUStates:
    """Run a GRU, torch's equation, over known inputs; the second direction reads backwards.

    Values and gradients are those of ``torch.nn.GRU``. On CPU it is faster: the gates of a step
    lie together, tanh is computed by the cheaper sigmoid, and buffers are kept from one step of
    training to the next. Not differentiable twice.

    Args:
        inputs: any strides; the middle axis may be of size 0.
        initial: first state of each direction.
        weights: the cell of each direction.
        workspace: where the buffers are kept.
        padding: True at bins that leave the state as it is; None: there are none.
        lag: bins by which the states are delayed; 0 stands where there is none yet.
        final_only: leave the states out.
    """
    flat = [tensor for cell in weights for tensor in cell]
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, initial, *flat))
    inputs = inputs.contiguous()
    sizes = (inputs.shape[0], *initial.shape)
    lease = workspace.lease(
        (*sizes, keep, initial.dtype, initial.device),
        lambda: GRUPath(*sizes, like=initial, keep=keep),
    )
    return GRUStates(*_FusedGRU.apply(lease, lag, final_only, padding, inputs, initial, *flat))


class _FusedGRU(torch.autograd.Function):
    """The two passes of ``fused_gru``; ``flat`` holds the weights of all directions."""

    @staticmethod
    def forward(
        ctx: Any,
        lease: Lease[GRUPath],
        lag: int,
        final_only: bool,
        padding: Tensor | None,
        inputs: Tensor,
        initial: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        path = lease.buffers
        sizes = InputSizes(inputs.shape[1])
        cells = [
            CellForward(path, weights, sizes, cell=c) for c, weights in enumerate(_by_cell(flat))
        ]
        inputs_of_cells = _by_direction(inputs, len(cells))
        padded = [None] * len(cells) if padding is None else _by_direction(padding, len(cells))
        path.states[0] = initial
        for block in path.blocks():
            for cell, source, mask in zip(cells, inputs_of_cells, padded, strict=True):
                cell.load(block.start, source[block], None if mask is None else mask[block])
            for t in range(block.start, block.stop):
                for cell in cells:
                    cell.step(t)
                path.advance(t)
        if path.slopes is None:
            lease.release()
        else:
            ctx.lease, ctx.lag = lease, lag
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(inputs, *flat)
        final = path.states[-1].clone()
        if final_only:
            return None, final
        return _in_time(path, lag), final

    @staticmethod
    def backward(
        ctx: Any, grad_states: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives()
        inputs, *flat = ctx.saved_tensors
        path: GRUPath = ctx.lease.buffers
        assert path.slopes is not None
        sizes = InputSizes(inputs.shape[1])
        cells = [
            CellBackward(path, weights, sizes, cell=c) for c, weights in enumerate(_by_cell(flat))
        ]
        inputs_of_cells = _by_direction(inputs, len(cells))
        to_inputs = None
        if ctx.needs_input_grad[4]:
            to_inputs = inputs.new_zeros(len(cells), *inputs.shape)
        to_states: list[Steps] = []
        if grad_states is not None:
            num_kept = max(path.num_steps - ctx.lag, 0)
            forwards, *backwards = (steps(part) for part in grad_states.split(path.hidden, dim=1))
            to_states = [forwards[ctx.lag :], *(part[:num_kept][::-1] for part in backwards)]
        gradient = path.slopes.gradient
        gradient.zero_() if grad_final is None else gradient.copy_(grad_final)
        for block in path.slopes.blocks():
            for t in range(block.stop - 1, block.start - 1, -1):
                for to_cell, to_state in zip(path.slopes.cell_gradients, to_states, strict=False):
                    if t < len(to_state):
                        to_cell.add_(to_state[t])
                path.slopes.step(t - block.start, t)
                for cell in cells:
                    cell.to_state(t - block.start)
            for c, (cell, source) in enumerate(zip(cells, inputs_of_cells, strict=True)):
                to_block = None if to_inputs is None else to_inputs[c, block]
                cell.add_block(block.start, source[block], to_sequence=to_block)
        ctx.lease.release()
        grads = [grad for cell in cells for grad in cell.gradients()]
        grad_inputs = None if to_inputs is None else to_inputs[0]
        if to_inputs is not None and len(cells) > 1:
            grad_inputs = to_inputs[0] + to_inputs[1].flip(0)
        return None, None, None, None, grad_inputs, gradient.clone(), *grads


def _by_cell(flat: Sequence[Tensor]) -> list[CellWeights]:
    return [CellWeights(*flat[i : i + 4]) for i in range(0, len(flat), 4)]


def _in_time(path: GRUPath, lag: int) -> Float[Tensor, "time direction_hidden columns"]:
    """Return the states after each step in the order of time, each direction delayed by ``lag``."""
    hidden, num_steps = path.hidden, path.num_steps
    num_kept = max(num_steps - lag, 0)
    states = path.states.new_empty(num_steps, path.num_cells * hidden, path.columns)
    states[:lag, :hidden] = 0.0
    states[lag:, :hidden] = path.states[1 : 1 + num_kept, 0]
    states[num_kept:, hidden:] = 0.0
    for cell in range(1, path.num_cells):
        after = path.cell_states[cell][1 : 1 + num_kept]
        for target, state in zip(steps(states[:num_kept, hidden:])[::-1], after, strict=True):
            target.copy_(state)
    return states


def _by_direction(buffer: Tensor, num_directions: int) -> list[Tensor]:
    """Return a buffer in the order in which each direction reads it."""
    return [buffer, buffer.flip(0)][:num_directions]
