from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from seqvae.distributions.stepwise import prior_conditional
from seqvae.errors import InputError
from seqvae.generators import GRU
from seqvae.nn.controlled_decoder import ControlledDecoder
from seqvae.nn.decoder_path import DecoderDraws, DecoderPath
from seqvae.priors import AR1
from toy import scramble

BOTH = pytest.mark.parametrize("recursion", ["fused", "loop"])


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


STATE_DIM, FACTOR_DIM, INFERRED_DIM, ENCODING_DIM, CONTROLLER_DIM = 5, 3, 2, 6, 4


def make_decoder(
    *,
    num_inputs: int = 2,
    inferred: int = INFERRED_DIM,
    dropout: float = 0.0,
    recursion: str = "fused",
) -> ControlledDecoder:
    decoder = ControlledDecoder(
        GRU(inferred + num_inputs, STATE_DIM),
        generator_dim=STATE_DIM,
        factor_dim=FACTOR_DIM,
        inferred_input_dim=inferred,
        encoding_dim=ENCODING_DIM,
        controller_dim=CONTROLLER_DIM,
        dropout=dropout,
        recursion=recursion,
    )
    scramble(decoder)
    return decoder


def arguments(*, num_bins: int = 7, num_encoded: int = 5, inferred: int = INFERRED_DIM) -> tuple:
    """Initial state, encoding, external inputs and noise of 2 samples of 3 trials."""
    return (
        torch.randn(2, 3, STATE_DIM),
        torch.randn(3, num_encoded, ENCODING_DIM),
        torch.randn(3, num_bins, 2),
        torch.randn(num_bins, inferred, 2, 3),
    )


def run(decoder: ControlledDecoder, *values: torch.Tensor, **options) -> DecoderPath:
    *values, noise = values
    return decoder(*values, draws=DecoderDraws(noise), **options)


def make_prior_step(num_bins: int = 7) -> partial:
    prior = AR1(INFERRED_DIM, time_constant=0.05, std=0.7)((num_bins, INFERRED_DIM), 0.02)
    return partial(prior_conditional, prior)


@BOTH
def test_decoder_is_the_recursion_of_its_docstring(recursion: str):
    decoder, prior_step = make_decoder(recursion=recursion), make_prior_step()
    initial, encoding, external, noise = arguments()
    path = run(decoder, initial, encoding, external, noise, prior_step=prior_step)
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
            drawn = mean + std * noise[t, :, s].T
            state = cell(torch.cat([drawn, external[:, t]], dim=1), state)
            factors = state @ kernel.T
            torch.testing.assert_close(path.factors[s, :, t], factors)
            torch.testing.assert_close(path.inferred_inputs[s, :, t], drawn)
            torch.testing.assert_close(path.input_mean[s, :, t], mean)
            torch.testing.assert_close(path.input_std[s, :, t], std.expand(3, -1))


def test_a_prior_without_gaussian_conditionals_cannot_go_on():
    with pytest.raises(InputError, match="a prior of Laplace has no Gaussian conditionals"):
        prior_conditional(torch.distributions.Laplace(0.0, 1.0), 0, None)


@BOTH
def test_controller_knows_no_later_encoding(recursion: str):
    decoder = make_decoder(recursion=recursion)
    initial, encoding, external, noise = arguments(num_encoded=7)
    other = encoding.clone()
    other[:, 4] += 1
    before = run(decoder, initial, encoding, external, noise)
    after = run(decoder, initial, other, external, noise)
    change = (before.input_mean - after.input_mean).abs().amax((0, 1, 3))
    assert (change[:4] == 0).all()
    assert (change[4:] > 0).all()


@BOTH
def test_controller_sees_the_factors_of_its_own_path(recursion: str):
    decoder = make_decoder(recursion=recursion)
    initial, encoding, external, noise = arguments(num_encoded=7)
    path = run(decoder, initial, encoding, external, noise)
    noise[2] += 1
    other = run(decoder, initial, encoding, external, noise)
    change = (path.input_mean - other.input_mean).abs().amax((0, 1, 3))
    assert (change[:3] == 0).all()
    assert (change[3:] > 0).all()


@BOTH
def test_without_controller_the_external_inputs_drive_alone(recursion: str):
    decoder = make_decoder(inferred=0, recursion=recursion)
    initial, encoding, external, noise = arguments(inferred=0)
    path = run(decoder, initial, encoding, external, noise)
    assert path.inferred_inputs.shape == (2, 3, 7, 0)
    assert not any(name.startswith("controller") for name, _ in decoder.named_parameters())
    external[:, 3] += 1
    change = (path.factors - run(decoder, initial, encoding, external, noise).factors).abs()
    assert not change[:, :, :3].any()
    assert change[:, :, 3:].amin() > 0


@BOTH
def test_decoder_without_any_input_is_autonomous(recursion: str):
    decoder = make_decoder(num_inputs=0, inferred=0, recursion=recursion)
    initial, encoding, external, noise = arguments(inferred=0)
    path = run(decoder, initial, encoding, external[..., :0], noise)
    state = initial
    kernel = nn.functional.normalize(decoder.factors.weight, dim=1)
    for t in range(7):
        state = decoder.generator(external[:, t, :0].expand(2, 3, 0), state)
        torch.testing.assert_close(path.factors[:, :, t], state @ kernel.T)


@BOTH
def test_factors_are_projections_on_unit_vectors(recursion: str):
    decoder = make_decoder(recursion=recursion)
    initial, encoding, external, noise = arguments(num_encoded=7)
    with torch.no_grad():
        before = run(decoder, initial, encoding, external, noise).factors
        decoder.factors.weight *= 7.0
        after = run(decoder, initial, encoding, external, noise).factors
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
    decoder(initial, *others[:2])
    assert torch.equal(recorded.given[0], initial)
    for before, after in zip(recorded.answered[:-1], recorded.given[1:], strict=True):
        assert torch.equal(before, after)


def test_dropout_acts_in_training_only():
    decoder, plain = make_decoder(dropout=0.5), make_decoder()
    values = arguments(num_encoded=7)
    draws = decoder.draw(*values[:3])
    assert not any(mask is None for mask in draws)
    plain.load_state_dict(decoder.state_dict())
    decoder.eval()
    assert decoder.draw(*values[:3])[1:] == (None, None, None)
    torch.testing.assert_close(run(decoder, *values), run(plain, *values))


def test_state_of_a_gru_never_leaves_its_first_bound():
    generator = GRU(3, 4)
    scramble(generator, size=3.0)
    state = 5 * torch.rand(6, 4)
    for _ in range(50):
        state = generator(10 * torch.randn(6, 3), state)
        assert (state.abs() <= 5).all()
    assert (generator(torch.randn(6, 3), torch.zeros(6, 4)).abs() <= 1).all()
