from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from seqvae.distributions.stepwise import prior_conditional
from seqvae.errors import InputError
from seqvae.generators import GRU
from seqvae.nn import SequenceGRU, gru_step, mlp
from seqvae.nn.controlled_decoder import ControlledDecoder
from seqvae.nn.recurrent import open_update_gates
from seqvae.priors import AR1
from toy import scramble


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_mlp_without_hidden_layers_is_one_linear_map():
    (layer,) = mlp(3, 2)
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (2, 3)


def test_mlp_has_relu_and_dropout_between_layers_only():
    kinds = [type(layer).__name__ for layer in mlp(3, 2, hidden_dims=(5, 4), dropout=0.1)]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert isinstance(mlp(3, 2, activate_output=True)[-1], nn.ReLU)


def test_mlp_acts_on_the_last_axis():
    layers, value = mlp(3, 2, hidden_dims=[4]), torch.randn(5, 6, 3)
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


@pytest.fixture(params=[True, False], ids=["bidirectional", "forward"])
def sequence_gru(request: pytest.FixtureRequest) -> SequenceGRU:
    gru = SequenceGRU(3, 4, bidirectional=request.param)
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


STATE_DIM, FACTOR_DIM, INFERRED_DIM, ENCODING_DIM, CONTROLLER_DIM = 5, 3, 2, 6, 4


def make_decoder(
    *, num_inputs: int = 2, inferred: int = INFERRED_DIM, dropout: float = 0.0
) -> ControlledDecoder:
    decoder = ControlledDecoder(
        GRU(inferred + num_inputs, STATE_DIM),
        generator_dim=STATE_DIM,
        factor_dim=FACTOR_DIM,
        inferred_input_dim=inferred,
        encoding_dim=ENCODING_DIM,
        controller_dim=CONTROLLER_DIM,
        dropout=dropout,
    )
    scramble(decoder)
    return decoder


def arguments(*, num_bins: int = 7, num_encoded: int = 5, inferred: int = INFERRED_DIM) -> tuple:
    """Initial state, encoding, external inputs and noise of 2 samples of 3 trials."""
    return (
        torch.randn(2, 3, STATE_DIM),
        torch.randn(3, num_encoded, ENCODING_DIM),
        torch.randn(3, num_bins, 2),
        torch.randn(2, 3, num_bins, inferred),
    )


def make_prior_step(num_bins: int = 7) -> partial:
    prior = AR1(INFERRED_DIM, time_constant=0.05, std=0.7)((num_bins, INFERRED_DIM), 0.02)
    return partial(prior_conditional, prior)


def test_decoder_is_the_recursion_of_its_docstring():
    decoder, prior_step = make_decoder(), make_prior_step()
    initial, encoding, external, noise = arguments()
    path = decoder(initial, encoding, external, noise, prior_step=prior_step)
    cell, kernel = decoder.generator.cell, decoder.factors.weight
    kernel = kernel / kernel.norm(dim=1, keepdim=True)
    for s in range(2):
        state, drawn = initial[s], None
        factors = state @ kernel.T
        controller = decoder.controller_start.expand(3, -1)
        for t in range(7):
            if t < 5:
                controller = decoder.controller(torch.cat([encoding[:, t], factors], 1), controller)
                mean, raw = decoder.posterior(controller).split(INFERRED_DIM, dim=1)
                std = 1e-3 + torch.log1p(raw.exp())
            else:
                mean, std = prior_step(t, drawn)
            drawn = mean + std * noise[s, :, t]
            state = cell(torch.cat([drawn, external[:, t]], dim=1), state)
            factors = state @ kernel.T
            torch.testing.assert_close(path.factors[s, :, t], factors)
            torch.testing.assert_close(path.inferred_inputs[s, :, t], drawn)
            torch.testing.assert_close(path.input_mean[s, :, t], mean)
            torch.testing.assert_close(path.input_std[s, :, t], std.expand(3, -1))


def test_a_prior_without_gaussian_conditionals_cannot_go_on():
    with pytest.raises(InputError, match="a prior of Laplace has no Gaussian conditionals"):
        prior_conditional(torch.distributions.Laplace(0.0, 1.0), 0, None)


def test_controller_knows_no_later_encoding():
    decoder, (initial, encoding, external, noise) = make_decoder(), arguments(num_encoded=7)
    other = encoding.clone()
    other[:, 4] += 1
    before = decoder(initial, encoding, external, noise)
    after = decoder(initial, other, external, noise)
    change = (before.input_mean - after.input_mean).abs().amax((0, 1, 3))
    assert (change[:4] == 0).all()
    assert (change[4:] > 0).all()


def test_controller_sees_the_factors_of_its_own_path():
    decoder, (initial, encoding, external, noise) = make_decoder(), arguments(num_encoded=7)
    path = decoder(initial, encoding, external, noise)
    noise[:, :, 2] += 1
    other = decoder(initial, encoding, external, noise)
    change = (path.input_mean - other.input_mean).abs().amax((0, 1, 3))
    assert (change[:3] == 0).all()
    assert (change[3:] > 0).all()


def test_without_controller_the_external_inputs_drive_alone():
    decoder = make_decoder(inferred=0)
    initial, encoding, external, noise = arguments(inferred=0)
    path = decoder(initial, encoding, external, noise)
    assert path.inferred_inputs.shape == (2, 3, 7, 0)
    assert not any(name.startswith("controller") for name, _ in decoder.named_parameters())
    external[:, 3] += 1
    change = (path.factors - decoder(initial, encoding, external, noise).factors).abs()
    assert not change[:, :, :3].any()
    assert change[:, :, 3:].amin() > 0


def test_decoder_without_any_input_is_autonomous():
    decoder = make_decoder(num_inputs=0, inferred=0)
    initial, encoding, external, noise = arguments(inferred=0)
    path = decoder(initial, encoding, external[..., :0], noise)
    state = initial
    kernel = nn.functional.normalize(decoder.factors.weight, dim=1)
    for t in range(7):
        state = decoder.generator(external[:, t, :0].expand(2, 3, 0), state)
        torch.testing.assert_close(path.factors[:, :, t], state @ kernel.T)


def test_factors_are_projections_on_unit_vectors():
    decoder, (initial, encoding, external, noise) = make_decoder(), arguments(num_encoded=7)
    with torch.no_grad():
        before = decoder(initial, encoding, external, noise).factors
        decoder.factors.weight *= 7.0
        after = decoder(initial, encoding, external, noise).factors
    torch.testing.assert_close(before, after)
    assert (before.abs() <= max(initial.norm(dim=-1).max(), STATE_DIM**0.5)).all()


class Recorded(nn.Module):
    """A generator that remembers the states it was given and those it answered."""

    def __init__(self, cell: GRU) -> None:
        super().__init__()
        self.cell, self.given, self.answered = cell, [], []

    def forward(self, inputs: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        self.given.append(state)
        self.answered.append(self.cell(inputs, state))
        return self.answered[-1]


def test_dropout_never_sits_on_a_recurrent_edge():
    decoder = make_decoder(dropout=0.5)
    decoder.generator = recorded = Recorded(decoder.generator)
    initial, *others = arguments(num_encoded=7)
    decoder(initial, *others)
    assert torch.equal(recorded.given[0], initial)
    for before, after in zip(recorded.answered[:-1], recorded.given[1:], strict=True):
        assert torch.equal(before, after)


def test_dropout_acts_in_training_only():
    decoder, plain = make_decoder(dropout=0.5), make_decoder()
    values = arguments(num_encoded=7)
    assert not torch.equal(decoder(*values).factors, decoder(*values).factors)
    plain.load_state_dict(decoder.state_dict())
    decoder.eval()
    torch.testing.assert_close(decoder(*values), plain(*values))


def test_state_of_a_gru_never_leaves_its_first_bound():
    generator = GRU(3, 4)
    scramble(generator, size=3.0)
    state = 5 * torch.rand(6, 4)
    for _ in range(50):
        state = generator(10 * torch.randn(6, 3), state)
        assert (state.abs() <= 5).all()
    assert (generator(torch.randn(6, 3), torch.zeros(6, 4)).abs() <= 1).all()
