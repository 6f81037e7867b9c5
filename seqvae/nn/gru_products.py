"""The matrix products of GRU cells along a ``GRUPath``, forward and backward.

What waits for nothing is multiplied for a whole block of steps at once, where a product is nearer
to the speed of the machine: the part of the input that is known beforehand, and all gradients to
weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seqvae.nn.gru_path import GRUPath
from seqvae.nn.products import products


class CellWeights(NamedTuple):
    """The parameters of a GRU cell as torch keeps them, gates in the order (r, z, n)."""

    input: Float[Tensor, "gates input"]
    hidden: Float[Tensor, "gates hidden"]
    input_bias: Float[Tensor, " gates"]
    hidden_bias: Float[Tensor, " gates"]

    @classmethod
    def of(cls, module: nn.GRU | nn.GRUCell, suffix: str = "") -> CellWeights:
        """Return the weights of a cell, or of one direction of a one-layer GRU."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return cls(*(getattr(module, name + suffix) for name in names))


class InputSizes(NamedTuple):
    """The input of a cell is [known, own], or [own, known] if ``sequence_last``.

    Attributes:
        sequence: size of the part that is known beforehand.
        feedback: size of the part that comes step by step.
        sequence_last: which comes first.
    """

    sequence: int
    feedback: int = 0
    sequence_last: bool = False

    def split(self, weight: Float[Tensor, "gates input"]) -> tuple[Tensor, Tensor]:
        """Return the weight of the known part and of the other."""
        sizes = (
            (self.feedback, self.sequence) if self.sequence_last else (self.sequence, self.feedback)
        )
        parts = weight.split(sizes, dim=1)
        return parts[self.sequence_last], parts[not self.sequence_last]

    def join(
        self, sequence: Float[Tensor, "gates _"], feedback: Float[Tensor, "gates _"]
    ) -> Tensor:
        """Put the weights together again."""
        return torch.cat(
            [feedback, sequence] if self.sequence_last else [sequence, feedback], dim=1
        )


class CellForward:
    """The products that fill the gate rows of a cell.

    Args:
        path: where the rows are.
        weights: the cell's parameters.
        sizes: of the parts of the input.
        cell: which of the path's cells it is.
    """

    def __init__(
        self, path: GRUPath, weights: CellWeights, sizes: InputSizes, *, cell: int = 0
    ) -> None:
        self._num_hidden = hidden = path.hidden
        reset_update, candidate = weights.input.split([2 * hidden, hidden])
        self._sequence, self._feedback = sizes.split(torch.cat([2 * candidate, reset_update]))
        bias = weights.hidden_bias.clone()
        bias[: 2 * hidden] += weights.input_bias[: 2 * hidden]
        self._hidden = torch.cat([weights.hidden, bias[:, None]], dim=1)
        self._candidate_bias = 2 * weights.input_bias[2 * hidden :, None]
        self._gates = path.gates[:, cell]
        self._input_rows, self._hidden_rows = path.input_rows[cell], path.hidden_rows[cell]
        self._states = path.cell_states_one[cell]
        rows, columns = 3 * hidden, path.columns
        self._add_hidden = products(rows, hidden + 1, columns, like=bias).add
        self._add_feedback = products(rows, sizes.feedback, columns, like=bias).add

    def load(
        self,
        start: int,
        sequence: Float[Tensor, "time size trial"],
        padding: Bool[Tensor, "time columns"] | None = None,
    ) -> None:
        """Put the product of the known part into the rows of a block of steps.

        A part with fewer columns than the path is the same for all samples of a trial.

        Args:
            start: the first step of the block.
            sequence: the known part of the input at its steps.
            padding: True where a step is to leave the state as it is.
        """
        num_steps, size, num_trials = sequence.shape
        hidden, first = self._num_hidden, start % len(self._gates)
        rows = self._gates[first : first + num_steps]
        if size:
            multiply = products(3 * hidden, size, num_steps * num_trials, like=sequence).write_steps
            if num_trials == rows.shape[2]:
                multiply(rows[:, : 3 * hidden], self._sequence, sequence)
            else:
                product = rows.new_empty(num_steps, 3 * hidden, 1, num_trials)
                multiply(product[:, :, 0], self._sequence, sequence)
                rows[:, : 3 * hidden].unflatten(2, (-1, num_trials)).copy_(product)
            rows[:, :hidden] += self._candidate_bias
        else:
            rows[:, :hidden] = self._candidate_bias
            rows[:, hidden : 3 * hidden] = 0.0
        rows[:, 3 * hidden :] = 0.0
        if padding is not None:  # an update gate of exactly 1 keeps the state
            rows[:, 2 * hidden : 3 * hidden].masked_fill_(padding[:, None], torch.inf)

    def step(self, t: int, feedback: Float[Tensor, "size columns"] | None = None) -> None:
        """Add the products of the state before step t, and of its own part of the input."""
        self._add_hidden(self._hidden_rows[t], self._hidden, self._states[t])
        if feedback is not None:
            self._add_feedback(self._input_rows[t], self._feedback, feedback)


class CellBackward:
    """The products that carry gradients from the gate rows of a cell to all that filled them.

    Args:
        path: its slopes hold the gradients to the rows, one block of steps at a time.
        weights: the cell's parameters.
        sizes: of the parts of the input.
        cell: which of the path's cells it is.
    """

    def __init__(
        self, path: GRUPath, weights: CellWeights, sizes: InputSizes, *, cell: int = 0
    ) -> None:
        slopes, hidden, columns = path.slopes, path.hidden, path.columns
        assert slopes is not None
        reset_update, candidate = weights.input.split([2 * hidden, hidden])
        sequence, feedback = sizes.split(torch.cat([candidate, reset_update]))
        self._sequence_t, self._feedback_t = sequence.t().contiguous(), feedback.t().contiguous()
        self._hidden_t = weights.hidden.t().contiguous()
        self._sizes, self._num_hidden, self._columns = sizes, hidden, columns
        self._rows, self._gradient = slopes.rows[:, cell], slopes.cell_gradients[cell]
        self._input_rows, self._hidden_rows = slopes.input_rows[cell], slopes.hidden_rows[cell]
        self._states = path.states_one[:, cell]
        rows, like = 3 * hidden, weights.hidden
        self._add_state = products(hidden, rows, columns, like=like).add
        self._write_feedback = products(sizes.feedback, rows, columns, like=like).write
        self._from_sequence = like.new_zeros(sizes.sequence, rows)
        self._from_feedback = like.new_zeros(sizes.feedback, rows)
        self._from_hidden = like.new_zeros(hidden + 1, rows)
        self._from_candidate = like.new_zeros(hidden)

    def to_state(self, i: int) -> None:
        """Add to the slopes' gradient what reaches the state before the i-th step of the block."""
        self._add_state(self._gradient, self._hidden_t, self._hidden_rows[i])

    def to_feedback(self, i: int, *, out: Float[Tensor, "size columns"]) -> Tensor:
        """Return the gradient to the cell's own part of the input at the i-th step of the block."""
        self._write_feedback(out, self._feedback_t, self._input_rows[i])
        return out

    def add_block(
        self,
        start: int,
        sequence: Float[Tensor, "time known trial"],
        feedback: Float[Tensor, "time own columns"] | None = None,
        *,
        to_sequence: Float[Tensor, "time known trial"] | None = None,
    ) -> None:
        """Add the share of a block of steps to the gradients of the weights.

        Args:
            start: the first step of the block.
            sequence: the known part of the input at its steps.
            feedback: the other part.
            to_sequence: where the gradient to the known part is to be put.
        """
        (num_steps, size, num_trials), hidden = sequence.shape, self._num_hidden
        flat = flatten_steps(self._rows[:num_steps])
        to_inputs, to_hidden = flat[: 3 * hidden], flat[hidden:]
        add_product(self._from_hidden, flatten_steps(self._states[start:][:num_steps]), to_hidden)
        self._from_candidate += flat[:hidden].sum(1)
        if feedback is not None:
            add_product(self._from_feedback, flatten_steps(feedback), to_inputs)
        if size == 0:
            return
        if num_trials < self._columns:
            to_inputs = to_inputs.unflatten(1, (num_steps, -1, num_trials)).sum(2).flatten(1)
        add_product(self._from_sequence, flatten_steps(sequence), to_inputs)
        if to_sequence is not None:
            by_step = to_inputs.unflatten(1, (num_steps, num_trials)).transpose(0, 1)
            multiply = products(size, 3 * hidden, to_inputs.shape[1], like=flat).write_steps
            multiply(to_sequence, self._sequence_t, by_step)

    def gradients(self) -> CellWeights:
        """Return the gradients to the weights, in torch's order."""
        hidden = self._num_hidden
        rows = self._sizes.join(self._from_sequence.t(), self._from_feedback.t())
        candidate, reset_update = rows.split([hidden, 2 * hidden])
        bias = self._from_hidden[hidden]
        return CellWeights(
            torch.cat([reset_update, candidate]),
            self._from_hidden[:hidden].t(),
            torch.cat([bias[: 2 * hidden], self._from_candidate]),
            bias,
        )


def flatten_steps(block: Float[Tensor, "time rows columns"]) -> Float[Tensor, "rows _"]:
    """Lay the steps of a block side by side."""
    return block.transpose(0, 1).reshape(block.shape[1], -1)


def add_product(
    total: Float[Tensor, "left right"],
    left: Float[Tensor, "left columns"],
    right: Float[Tensor, "right columns"],
) -> None:
    """Add left @ right.T to ``total``."""
    products(len(left), left.shape[1], len(right), like=total).add(total, left, right.t())
