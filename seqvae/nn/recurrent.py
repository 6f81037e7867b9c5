"""Recurrent blocks: a GRU over padded sequences, and one GRU step from projected inputs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqvae.nn.fused_gru import GRUStates, fused_gru
from seqvae.nn.gru_path import GRUPath
from seqvae.nn.gru_products import CellWeights
from seqvae.nn.workspace import Workspace

Recursion = Literal["fused", "loop"]
"""How a recurrence runs: as fast as it can, or as it is defined."""


class SequenceStates(NamedTuple):
    """States of a recurrent network over a batch of sequences.

    Attributes:
        states: the state at each bin, forward then backward direction; 0 at padding.
        final: the state after each direction has read the whole sequence.
    """

    states: Float[Tensor, "batch time direction_hidden"]
    final: Float[Tensor, "batch direction_hidden"]


class SequenceGRU(nn.Module):
    """GRU over sequences of unequal length, with a learnable first state.

    Args:
        input_dim: size of the input at each bin.
        hidden_dim: size of the state of each direction.
        bidirectional: False reads forward only, so that a state knows no later bin.

    Attributes:
        recursion: "fused" runs ``fused_gru`` on CPU and torch's own fused kernel elsewhere;
            "loop" runs torch's everywhere, which is differentiable twice.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, bidirectional: bool = True) -> None:
        super().__init__()
        self.num_directions = 2 if bidirectional else 1
        self.gru = nn.GRU(input_dim, hidden_dim, batch_first=True, bidirectional=bidirectional)
        self.initial_state = nn.Parameter(torch.zeros(self.num_directions, hidden_dim))
        self.recursion: Recursion = "fused"
        self._workspace: Workspace[GRUPath] = Workspace()
        open_update_gates(self.gru)

    @property
    def output_dim(self) -> int:
        """Size of a state, both directions together."""
        return self.num_directions * self.gru.hidden_size

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        """The state-to-state weights."""
        return [w for name, w in self.gru.named_parameters() if name.startswith("weight_hh")]

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        lengths: Int[Tensor, " batch"],
        *,
        lag: int = 0,
    ) -> SequenceStates:
        """Read the sequences; bins at or past ``lengths`` are never read.

        Args:
            inputs: the sequences, padded.
            lengths: their lengths.
            lag: bins by which the states are delayed, see ``shift``.
        """
        if not self._runs_fused(inputs):
            states, final = self._torch(inputs, lengths)
            return SequenceStates(shift(states, lag, self.num_directions), final)
        padding = _padding(inputs, lengths)
        result = self._run_fused(inputs, padding, lag=lag if padding is None else 0)
        assert result.states is not None
        states, final = result.states.permute(2, 0, 1), result.final.permute(2, 0, 1).flatten(1)
        if padding is not None:
            states = states.masked_fill(padding.t()[..., None], 0.0)
            states = shift(states, lag, self.num_directions)
        return SequenceStates(states, final)

    def last(
        self, inputs: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch direction_hidden"]:
        """Read the sequences and return the final states only."""
        if not self._runs_fused(inputs):
            return self._torch(inputs, lengths).final
        final = self._run_fused(inputs, _padding(inputs, lengths), final_only=True).final
        return final.permute(2, 0, 1).flatten(1)

    def _runs_fused(self, inputs: Tensor) -> bool:
        return self.recursion == "fused" and inputs.device.type == "cpu"

    def _run_fused(
        self,
        inputs: Float[Tensor, "batch time input"],
        padding: Bool[Tensor, "time batch"] | None,
        *,
        lag: int = 0,
        final_only: bool = False,
    ) -> GRUStates:
        """Run ``fused_gru``, in full precision whatever autocast asks for."""
        if padding is not None:  # which may hold anything, even nan
            inputs = inputs.masked_fill(padding.t()[..., None], 0.0)
        directions = ("_l0", "_l0_reverse")[: self.num_directions]
        weights = [CellWeights.of(self.gru, suffix) for suffix in directions]
        initial = self.initial_state
        with torch.autocast(inputs.device.type, enabled=False):
            return fused_gru(
                inputs.to(initial.dtype).permute(1, 2, 0),
                initial[:, :, None].expand(-1, -1, len(inputs)),
                weights,
                workspace=self._workspace,
                padding=padding,
                lag=lag,
                final_only=final_only,
            )

    def _torch(
        self, inputs: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"]
    ) -> SequenceStates:
        """Run torch's GRU."""
        num_bins = inputs.shape[1]
        initial = self.initial_state[:, None].expand(-1, inputs.shape[0], -1).contiguous()
        if _padding(inputs, lengths) is None:
            states, final = self.gru(inputs, initial)
        else:
            lengths = lengths.clamp(min=1, max=num_bins)
            packed = pack_padded_sequence(
                inputs, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            packed_states, final = self.gru(packed, initial)
            states, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=num_bins)
        return SequenceStates(states, final.transpose(0, 1).flatten(1))


def shift(
    states: Float[Tensor, "batch time direction_hidden"], lag: int, num_directions: int
) -> Float[Tensor, "batch time direction_hidden"]:
    """Delay each direction by ``lag`` bins: forward state of t - lag, backward state of t + lag."""
    if lag == 0:
        return states
    hidden, num_kept = states.shape[-1] // num_directions, max(states.shape[1] - lag, 0)
    shifted = torch.zeros_like(states)  # in the memory order of the states
    shifted[:, lag:, :hidden] = states[:, :num_kept, :hidden]
    shifted[:, :num_kept, hidden:] = states[:, lag:, hidden:]
    return shifted


def _padding(
    inputs: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"]
) -> Bool[Tensor, "time batch"] | None:
    """Return True at bins past the end of a sequence (of at least one bin); None: no such bin."""
    num_bins = inputs.shape[1]
    if bool((lengths >= num_bins).all()):
        return None
    return torch.arange(num_bins, device=lengths.device)[:, None] >= lengths.clamp(min=1)


def gru_step(
    projected_inputs: Float[Tensor, "*leading gates"],
    projected_state: Float[Tensor, "*leading gates"],
    state: Float[Tensor, "*leading hidden"],
) -> Float[Tensor, "*leading hidden"]:
    """One step of torch's GRU from the two projections, gates in the order (r, z, n).

    r = sigmoid(i_r + h_r),  z = sigmoid(i_z + h_z),  n = tanh(i_n + r * h_n),
    state' = n + z * (state - n).

    Args:
        projected_inputs: W_i x + b_i, size 3 hidden.
        projected_state: W_h state + b_h, size 3 hidden; the reset gate acts after this product.
        state: the last state.
    """
    hidden = state.shape[-1]
    gates = torch.sigmoid(projected_inputs[..., : 2 * hidden] + projected_state[..., : 2 * hidden])
    reset, update = gates[..., :hidden], gates[..., hidden:]
    candidate = torch.tanh(
        torch.addcmul(
            projected_inputs[..., 2 * hidden :], reset, projected_state[..., 2 * hidden :]
        )
    )
    # under mixed precision the projections are half, the state is kept in full
    return torch.lerp(candidate.to(state.dtype), state, update.to(state.dtype))


def open_update_gates(module: nn.GRU | nn.GRUCell) -> None:
    """Start a GRU slow: add 1 to the input biases of the update gates.

    In torch's equation z near 1 keeps the state, so gradients reach further at first
    (the forget-gate bias of Sussillo et al. 2016).
    """
    hidden = module.hidden_size
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("bias_ih"):
                parameter[hidden : 2 * hidden] += 1.0
