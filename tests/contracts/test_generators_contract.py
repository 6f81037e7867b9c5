"""What every generator promises; members are found by walking the family's folder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from walk import members

import seqvae.generators
from seqvae.generators import Generator
from toy import scramble

INPUT_DIM, STATE_DIM = 3, 5
GENERATORS = members(seqvae.generators, Generator)


@pytest.fixture(params=GENERATORS, ids=lambda member: member.__name__)
def generator(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    made = request.param(INPUT_DIM, STATE_DIM).double()
    scramble(made)
    return made


def example(*leading: int, input_dim: int = INPUT_DIM) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(*leading, input_dim, dtype=torch.float64)
    return inputs, torch.randn(*leading, STATE_DIM, dtype=torch.float64)


def test_the_walk_finds_the_members() -> None:
    assert "GRU" in {member.__name__ for member in GENERATORS}


def test_every_member_is_a_public_name_of_the_family(generator: Generator) -> None:
    assert getattr(seqvae.generators, type(generator).__name__) is type(generator)


@pytest.mark.parametrize("leading", [(4,), (2, 4), (1, 0)])
def test_next_state_has_the_shape_of_the_state(
    generator: Generator, leading: tuple[int, ...]
) -> None:
    inputs, state = example(*leading)
    assert generator(inputs, state).shape == state.shape


def test_leading_axes_are_independent(generator: Generator) -> None:
    inputs, state = example(2, 4)
    whole = generator(inputs, state)
    torch.testing.assert_close(generator(inputs[1], state[1]), whole[1])


def test_a_step_has_no_memory_but_the_state(generator: Generator) -> None:
    inputs, state = example(4)
    first = generator(inputs, state)
    generator(inputs + 1, first)
    assert torch.equal(generator(inputs, state), first)


def test_inputs_drive_the_state(generator: Generator) -> None:
    inputs, state = example(4)
    assert (generator(inputs + 1, state) != generator(inputs, state)).all()


def test_a_generator_without_inputs_runs_on_its_state(generator: Generator) -> None:
    autonomous = type(generator)(0, STATE_DIM).double()
    inputs, state = example(4, input_dim=0)
    assert autonomous(inputs, state).isfinite().all()


def test_gradients_are_finite_and_reach_everything(generator: Generator) -> None:
    inputs, state = (tensor.requires_grad_() for tensor in example(6))
    generator(inputs, generator(inputs, state)).square().sum().backward()
    for tensor in (inputs, state, *generator.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


def test_recurrent_kernels_are_parameters_of_the_generator(generator: Generator) -> None:
    own = {id(parameter) for parameter in generator.parameters()}
    assert generator.recurrent_kernels
    assert all(id(kernel) in own for kernel in generator.recurrent_kernels)


def test_a_long_run_stays_finite(generator: Generator) -> None:
    inputs, state = example(4)
    with torch.no_grad():
        for _ in range(500):
            state = generator(inputs, state)
    assert state.isfinite().all()


def test_state_dict_round_trip(generator: Generator) -> None:
    twin = type(generator)(INPUT_DIM, STATE_DIM).double()
    twin.load_state_dict(generator.state_dict())
    inputs, state = example(4)
    assert torch.equal(twin(inputs, state), generator(inputs, state))
