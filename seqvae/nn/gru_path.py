"""Fast arithmetic of GRU cells over many steps: feature-major buffers, gates and their slopes.

Columns (sample x trial) stand last everywhere, so that a gate is one contiguous stretch of memory.
The gates of a step stand as rows [n, r, z, h]: candidate, reset, update, and the hidden part of the
candidate,

    r = sigmoid(i_r + h_r),  z = sigmoid(i_z + h_z),  n = tanh(i_n + r * h),
    state' = n + z * (state - n),

so that one product of the inputs fills the first three and one of the state the last three.
tanh(x) is computed as 2 sigmoid(2 x) - 1, which is far cheaper; i_n comes doubled for it. Below
each state stands a row of ones: the bias of r, z and h is one more column of the state's weight.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Shaped
from torch import Tensor

COLUMNS_PER_BLOCK = 1024
"""Steps x columns that are computed at once on CPU, where nothing waits: they fit its cache."""

Steps = list[Tensor]


class GRUPath:
    """Gates and states of one or more equal GRU cells over the steps of a sequence.

    Args:
        num_steps: steps.
        num_cells: cells that run side by side, e.g. the two directions.
        hidden: size of a state.
        columns: sample x trial.
        like: gives dtype and device.
        keep: whether the gates of all steps are kept for a backward pass.

    Attributes:
        block: steps whose products are made together.
        gates: the gate rows of each step; if nothing is kept, of one block.
        states: the state before each step, and after the last.
        states_one: the same with their rows of ones.
        update: this gate of each step, all cells.
        input_rows, hidden_rows: for each cell, the gate rows at each step that the inputs fill;
            those that the state fills.
        cell_states, cell_states_one: for each cell, its state before each step and after the last;
            with its row of ones.
        slopes: the way back; None if nothing is kept.
    """

    def __init__(
        self, num_steps: int, num_cells: int, hidden: int, columns: int, *, like: Tensor, keep: bool
    ) -> None:
        self.num_steps, self.num_cells, self.hidden, self.columns = (
            num_steps, num_cells, hidden, columns)  # fmt: skip
        fitting = max(1, COLUMNS_PER_BLOCK // max(1, columns))
        self.block = min(num_steps, fitting if like.device.type == "cpu" else num_steps)
        num_kept = num_steps if keep else self.block
        repeat = -(-num_steps // num_kept)
        self.gates = like.new_zeros(num_kept, num_cells, 4 * hidden, columns)
        self.states_one = like.new_ones(num_steps + 1, num_cells, hidden + 1, columns)
        self.states = self.states_one[:, :, :hidden]
        self._candidate, self._reset, self.update, self._hidden_part = (
            steps(gate) * repeat for gate in self.gates.split(hidden, dim=2)
        )
        self._reset_update = steps(self.gates[:, :, hidden : 3 * hidden]) * repeat
        self._states = steps(self.states)
        cells = range(num_cells)
        self.input_rows = [steps(self.gates[:, c, : 3 * hidden]) * repeat for c in cells]
        self.hidden_rows = [steps(self.gates[:, c, hidden:]) * repeat for c in cells]
        self.cell_states = [steps(self.states[:, c]) for c in cells]
        self.cell_states_one = [steps(self.states_one[:, c]) for c in cells]
        self._minus_one = like.new_tensor(-1.0)
        self.slopes = Slopes(self) if keep else None

    def blocks(self) -> Iterator[slice]:
        """Yield the steps of each block."""
        for start in range(0, self.num_steps, self.block):
            yield slice(start, min(start + self.block, self.num_steps))

    def advance(self, t: int) -> None:
        """Make the state after step t from the products of step t, which stand in its gate rows."""
        self._reset_update[t].sigmoid_()
        candidate = self._candidate[t]
        candidate.addcmul_(self._reset[t], self._hidden_part[t], value=2).sigmoid_()
        torch.add(self._minus_one, candidate, alpha=2, out=candidate)
        torch.lerp(candidate, self._states[t], self.update[t], out=self._states[t + 1])


class Slopes:
    """The way back through a ``GRUPath``, one block of steps at a time.

    With D the gradient of the loss to the state after a step, the gradients to its gate rows are D
    times the slopes, which are elementwise functions of the gates:

        n: (1 - z) (1 - n^2),  h: slope_n r,  r: slope_h h (1 - r),  z: (state' - n) (1 - z).

    Args:
        path: the path.

    Attributes:
        block: steps in a block.
        gradient, cell_gradients: to the state after the step that is next on the way back; of all
            cells, and of each.
        rows: the slopes, then the gradients, of each step of the block.
        input_rows, hidden_rows: as in ``GRUPath``.
    """

    def __init__(self, path: GRUPath) -> None:
        hidden, columns, like = path.hidden, path.columns, path.states
        self._path = path
        self._gates = path.gates.split(hidden, dim=2)
        self.block = path.block
        self.gradient = like.new_zeros(path.num_cells, hidden, columns)
        self.cell_gradients = steps(self.gradient)
        self._to_gates = self.gradient.unsqueeze(1)
        self.rows = like.new_zeros(self.block, path.num_cells, 4 * hidden, columns)
        self._slopes = self.rows.split(hidden, dim=2)
        self._rest = like.new_zeros(self.block, path.num_cells, hidden, columns)
        self._by_gate = steps(self.rows.view(self.block, path.num_cells, 4, hidden, columns))
        cells = [self.rows[:, c] for c in range(path.num_cells)]
        self.input_rows = [steps(cell[:, : 3 * hidden]) for cell in cells]
        self.hidden_rows = [steps(cell[:, hidden:]) for cell in cells]

    def blocks(self) -> Iterator[slice]:
        """Yield the steps of each block, the last one first, its slopes computed."""
        for stop in range(self._path.num_steps, 0, -self.block):
            start = max(0, stop - self.block)
            self.load(start, stop)
            yield slice(start, stop)

    def load(self, start: int, stop: int) -> None:
        """Compute the slopes of the steps from ``start`` to ``stop``."""
        num = stop - start
        candidate, reset, update, hidden_part = (gate[start:stop] for gate in self._gates)
        slope_n, slope_r, slope_z, slope_h = (slope[:num] for slope in self._slopes)
        rest = torch.sub(1, update, out=self._rest[:num])
        torch.sub(self._path.states[start + 1 : stop + 1], candidate, out=slope_z).mul_(rest)
        torch.mul(candidate, candidate, out=slope_n)
        torch.addcmul(rest, slope_n, rest, value=-1, out=slope_n)
        torch.mul(slope_n, reset, out=slope_h)
        torch.mul(hidden_part, slope_h, out=slope_r)
        torch.addcmul(slope_r, slope_r, reset, value=-1, out=slope_r)

    def step(self, i: int, t: int) -> None:
        """Turn the slopes of step t, the i-th of the block, into gradients to its gate rows.

        ``gradient`` becomes the direct part of that to the state before; the part through the
        product of the state is left to the caller.
        """
        self._by_gate[i].mul_(self._to_gates)
        self.gradient.mul_(self._path.update[t])


def steps(buffer: Shaped[Tensor, "time ..."]) -> Steps:
    """Return the views of a buffer by its first axis; made once, they spare the loop the cost."""
    return list(buffer.unbind(0))
