"""Recurrent blocks: a GRU over padded sequences, and one GRU step from projected inputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


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
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, bidirectional: bool = True) -> None:
        super().__init__()
        self.num_directions = 2 if bidirectional else 1
        self.gru = nn.GRU(input_dim, hidden_dim, batch_first=True, bidirectional=bidirectional)
        self.initial_state = nn.Parameter(torch.zeros(self.num_directions, hidden_dim))
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
        self, inputs: Float[Tensor, "batch time input"], lengths: Int[Tensor, " batch"]
    ) -> SequenceStates:
        """Read the sequences; bins at or past ``lengths`` are never read."""
        num_bins = inputs.shape[1]
        initial = self.initial_state[:, None].expand(-1, inputs.shape[0], -1).contiguous()
        lengths = lengths.clamp(min=1, max=num_bins)
        if bool((lengths == num_bins).all()):
            states, final = self.gru(inputs, initial)
        else:
            packed = pack_padded_sequence(
                inputs, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            packed_states, final = self.gru(packed, initial)
            states, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=num_bins)
        return SequenceStates(states, final.transpose(0, 1).flatten(1))


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
