from __future__ import annotations

from functools import partial

import pytest
import torch

from seqvae.errors import InputError
from seqvae.generators import ResidualMLP
from seqvae.models import SequentialVAE
from toy import scramble, toy_batch, toy_spec


def generator(input_dim: int = 2, state_dim: int = 3, **options) -> ResidualMLP:
    torch.manual_seed(0)
    return ResidualMLP(input_dim, state_dim, **options).double()


def test_a_step_adds_the_velocity_of_the_network():
    net = generator(hidden_dims=(5, 4), step=0.3)
    scramble(net)
    inputs, state = (torch.randn(6, size, dtype=torch.float64) for size in (2, 3))
    hidden = torch.cat([inputs, state], dim=1)
    first, second, last = (layer for layer in net.velocity if isinstance(layer, torch.nn.Linear))
    for layer in (first, second):
        summed = hidden @ layer.weight.T + layer.bias
        hidden = summed * torch.sigmoid(summed)
    expected = state + 0.3 * (hidden @ last.weight.T + last.bias)
    torch.testing.assert_close(net(inputs, state), expected)


def test_steps_of_a_tenth_follow_the_flow_that_the_network_is():
    """With a tenth of the step ten times as often the end is the same, to the order of a step."""
    coarse, fine = generator(0, step=0.01), generator(0, step=0.001)
    scramble(coarse)
    fine.load_state_dict(coarse.state_dict())
    state = torch.randn(6, 3, dtype=torch.float64)
    none, ends = state[:, :0], []
    for net, count in ((coarse, 20), (fine, 200)):
        end = state
        for _ in range(count):
            end = net(none, end)
        ends.append(end)
    moved = (ends[1] - state).norm()
    assert (ends[0] - ends[1]).norm() < 0.05 * moved


def test_before_learning_a_state_stays_where_it_began():
    inputs, state = (torch.randn(6, size, dtype=torch.float64) for size in (2, 3))
    assert (generator()(inputs, state) - state).abs().max() < 0.02


def test_velocity_grows_no_faster_than_the_state():
    """|x sigmoid(x)| <= |x|, so the product of the layers' norms bounds what a state may grow."""
    net = generator(0, hidden_dims=(5, 4))
    scramble(net, size=1.0)
    slope, most = 1.0, 0.0
    net.requires_grad_(False)
    for layer in (layer for layer in net.velocity if isinstance(layer, torch.nn.Linear)):
        norm = float(torch.linalg.matrix_norm(layer.weight, 2))
        slope, most = slope * norm, most * norm + float(layer.bias.norm())
    for size in (1.0, 1e3, 1e6):
        state = size * torch.randn(20, 3, dtype=torch.float64)
        velocity = (net(state[:, :0], state) - state) / net.step
        assert (velocity.norm(dim=1) <= most + slope * state.norm(dim=1)).all()


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan")])
def test_a_step_that_goes_nowhere_is_refused(step: float):
    with pytest.raises(InputError, match="step must be above 0"):
        generator(step=step)


@pytest.mark.parametrize("size", [1, 3])
def test_one_size_is_that_of_factors_state_and_initial_condition(size: int):
    spec = toy_spec(num_inputs=2)
    model = SequentialVAE(
        spec,
        factor_dim=size,
        generator_dim=None,
        initial_condition_dim=None,
        inferred_input_dim=0,
        dropout=0.0,
        generator=ResidualMLP,
    ).double()
    states = []
    model.generator.register_forward_hook(lambda module, inputs, state: states.append(state))
    output = model(toy_batch(spec), 2)
    assert output.latents["initial_condition"].sample.shape == (2, 4, size)
    assert output.factors.shape == (2, 4, 8, size)
    assert len(states) == 8
    assert states[0].shape == (2, 4, size)


def test_a_residual_generator_is_learned_through_inferred_inputs_and_all_bins():
    spec = toy_spec()
    model = SequentialVAE(
        spec, factor_dim=2, generator_dim=None, inferred_input_dim=1, dropout=0.0,
        generator=partial(ResidualMLP, hidden_dims=(8,)),
    ).double()  # fmt: skip
    scramble(model, size=0.05)
    batch = toy_batch(spec)
    model(batch, 2).emission.log_prob(batch.target).sum().backward()
    for name, parameter in model.named_parameters():
        if "prior" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
