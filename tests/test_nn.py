from __future__ import annotations

import pytest
import torch
from torch import nn

from seqvae.nn import SequenceGRU, feed_forward, gru_step
from seqvae.nn.recurrent import open_update_gates
from toy import scramble


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_mlp_without_hidden_layers_is_one_linear_map():
    (layer,) = feed_forward(3, 2)
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (2, 3)


def test_mlp_has_relu_and_dropout_between_layers_only():
    kinds = [type(layer).__name__ for layer in feed_forward(3, 2, hidden_dims=(5, 4), dropout=0.1)]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert isinstance(feed_forward(3, 2, activate_output=True)[-1], nn.ReLU)
    smooth = feed_forward(3, 2, hidden_dims=(5,), activation=nn.SiLU)
    assert [type(layer).__name__ for layer in smooth] == ["Linear", "SiLU", "Linear"]


def test_mlp_acts_on_the_last_axis():
    layers, value = feed_forward(3, 2, hidden_dims=[4]), torch.randn(5, 6, 3)
    torch.testing.assert_close(layers(value)[2, 4], layers(value[2, 4]))


def project(cell: nn.GRUCell, inputs: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    return gru_step(
        nn.functional.linear(inputs, cell.weight_ih, cell.bias_ih),
        nn.functional.linear(state, cell.weight_hh, cell.bias_hh),
        state,
    )


def test_gru_step_is_the_gru_cell_of_torch():
    cell = nn.GRUCell(3, 4)
    inputs, state = torch.randn(5, 3, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    tensors = [inputs, state, *cell.parameters()]
    results = [project(cell, inputs, state), cell(inputs, state)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(result.square().sum(), tensors) for result in results]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_gru_step_takes_any_leading_axes():
    cell, inputs, state = nn.GRUCell(3, 4), torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    torch.testing.assert_close(project(cell, inputs, state)[1], cell(inputs[1], state[1]))


def test_open_update_gates_starts_slow():
    cell = nn.GRUCell(3, 4)
    before = cell.bias_ih.detach().clone()
    open_update_gates(cell)
    torch.testing.assert_close(cell.bias_ih - before, torch.tensor([0.0] * 4 + [1.0] * 4 + [0] * 4))


LENGTHS = torch.tensor([7, 1, 4, 6])


@pytest.fixture(params=["fused", "loop"])
def recursion(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[True, False], ids=["bidirectional", "forward"])
def sequence_gru(request: pytest.FixtureRequest, recursion: str) -> SequenceGRU:
    gru = SequenceGRU(3, 4, bidirectional=request.param)
    gru.recursion = recursion
    scramble(gru)
    return gru


def test_sequences_of_unequal_length_are_read_as_if_alone(sequence_gru: SequenceGRU):
    inputs = torch.randn(4, 7, 3)
    together = sequence_gru(inputs, LENGTHS)
    assert together.states.shape == (4, 7, sequence_gru.output_dim)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = sequence_gru(inputs[i : i + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together.states[i, :length], alone.states[0])
        torch.testing.assert_close(together.final[i], alone.final[0])
        assert not together.states[i, length:].any()


@pytest.mark.parametrize("garbage", [1e6, torch.nan])
def test_padding_is_never_read(sequence_gru: SequenceGRU, garbage: float):
    inputs = torch.randn(4, 7, 3)
    padding = torch.arange(7) >= LENGTHS[:, None]
    clean = sequence_gru(inputs, LENGTHS)
    dirty = sequence_gru(inputs.masked_fill(padding[..., None], garbage), LENGTHS)
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


def test_final_state_has_read_the_whole_sequence(sequence_gru: SequenceGRU):
    states, final = sequence_gru(torch.randn(4, 7, 3), LENGTHS)
    torch.testing.assert_close(final[:, :4], states[torch.arange(4), LENGTHS - 1, :4])
    torch.testing.assert_close(final[:, 4:], states[:, 0, 4:])


def test_last_is_the_final_state_without_the_others(sequence_gru: SequenceGRU):
    inputs = torch.randn(4, 7, 3)
    final = sequence_gru(inputs, LENGTHS).final
    torch.testing.assert_close(sequence_gru.last(inputs, LENGTHS), final, rtol=0, atol=0)


def test_forward_states_know_no_later_bin():
    inputs = torch.randn(2, 7, 3)
    other = inputs.clone()
    other[:, 4] += 1
    for bidirectional in (False, True):
        gru = SequenceGRU(3, 4, bidirectional=bidirectional)
        full = torch.full((2,), 7)
        change = (gru(inputs, full).states - gru(other, full).states).abs().amax((0, 2))
        assert (change[4:] > 0).all()
        assert (change[:4] > 0).all() == bidirectional


def test_first_state_and_kernels_are_learned(sequence_gru: SequenceGRU):
    sequence_gru(torch.randn(4, 7, 3), LENGTHS).states.square().sum().backward()
    for parameter in sequence_gru.parameters():
        assert parameter.grad.abs().sum() > 0
    shapes = {kernel.shape for kernel in sequence_gru.recurrent_kernels}
    assert shapes == {(12, 4)}
    assert len(sequence_gru.recurrent_kernels) == sequence_gru.num_directions
