from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from linear import random_model, simulate
from seqvae import EM
from seqvae.config import to_config
from seqvae.errors import InputError
from seqvae.learning.anderson import Anderson
from seqvae.state_space import canonical, from_vector, to_vector
from test_em import blank, never_falls, penalized
from tiny import tiny_data

ACCELERATED = partial(EM, progress=False, acceleration=5, tolerance=0.0)
PLAIN = partial(EM, progress=False, tolerance=0.0)
PLAIN_ITERATIONS = 70
E_STEPS = [("gaussian", "exact"), ("poisson", "variational"), ("gaussian", "variational")]


# --- the extrapolation ----------------------------------------------------------------------------


def test_a_linear_map_is_solved_in_as_many_steps_as_it_has_dimensions():
    """x <- M x + b has the fixed point (1 - M)^-1 b, where one step leaves most of the way."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    matrix = 0.99 * matrix / torch.linalg.matrix_norm(matrix, ord=2)
    offset = torch.randn(4, generator=generator, dtype=torch.float64)
    truth = torch.linalg.solve(torch.eye(4).double() - matrix, offset)
    anderson, point = Anderson(8), torch.zeros(4, dtype=torch.float64)
    for _ in range(7):
        image = matrix @ point + offset
        proposal = anderson.proposal(point, image)
        point = image if proposal is None else proposal
    assert_close(point, truth, rtol=1e-6, atol=1e-6)


def test_what_has_converged_stays():
    anderson, point = Anderson(3), torch.ones(2, dtype=torch.float64)
    assert anderson.proposal(point, point) is None
    assert_close(anderson.proposal(point, point), point)


@pytest.mark.parametrize("kind", ["poisson", "gaussian"])
def test_a_model_is_its_vector(kind):
    model = random_model(kind, 3, num_inputs=2)
    again = from_vector(to_vector(model), model)
    for one, other in zip(model, again, strict=True):
        for name, value in vars(one).items():
            assert_close(getattr(other, name), value, rtol=1e-12, atol=1e-12)


@given(st.lists(st.floats(-8, 8), min_size=30, max_size=30))
@settings(max_examples=25, deadline=None)
def test_any_vector_is_a_model_of_positive_definite_covariances(numbers):
    like = random_model("gaussian", 2, num_neurons=3)
    vector = to_vector(like)
    moved = vector + torch.tensor(numbers[: len(vector)], dtype=torch.float64)
    model = from_vector(moved, like)
    for covariance in (model.dynamics.noise_covariance, model.dynamics.initial_covariance):
        assert torch.equal(covariance, covariance.mT)
        assert not torch.linalg.cholesky_ex(covariance).info
    assert (model.emission.std >= model.emission.least_std).all()


# --- in EM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "e_step"), E_STEPS)
@pytest.mark.parametrize("lengths", [None, [15, 9, 12, 2, 15, 1]])
def test_the_accelerated_bound_never_falls(kind, e_step, lengths):
    truth = random_model(kind, 2, num_inputs=1)
    batch = simulate(truth, num_trials=6, num_bins=15, lengths=lengths, missing=0.1)
    learner = ACCELERATED(e_step=e_step, max_iterations=30)
    assert never_falls(penalized(list(learner.iterations(blank(kind, batch, 2), batch))))


def test_laplace_ends_where_its_bound_would_fall():
    """Its fixed point is not where its bound is highest."""
    batch = simulate(random_model("poisson", 2), num_trials=6, num_bins=15, missing=0.1)
    model, settings = blank("poisson", batch, 2), {"e_step": "laplace", "max_iterations": 60}
    states = list(ACCELERATED(**settings).iterations(model, batch))
    assert len(states) < 60
    assert never_falls(penalized(states))
    model.take(states[-1].learned)
    model.has_begun = True
    goes_on = penalized(list(PLAIN(e_step="laplace", max_iterations=3).iterations(model, batch)))
    assert goes_on[-1] < states[-1].penalized


@pytest.mark.parametrize(("kind", "e_step"), E_STEPS[:2])
def test_it_ends_where_plain_iterations_end(kind, e_step):
    """Without a penalty, which would make loadings ever smaller and latents larger."""
    batch = simulate(random_model(kind, 1, num_neurons=20), num_trials=12, num_bins=10)
    settings = {"e_step": e_step, "ridge": 0.0}
    model = blank(kind, batch, 1)
    *_, plain = PLAIN(max_iterations=PLAIN_ITERATIONS, **settings).iterations(model, batch)
    *_, found = ACCELERATED(max_iterations=30, **settings).iterations(model, batch)
    assert found.penalized == pytest.approx(plain.penalized, abs=1e-8)
    one, other = (to_vector(canonical(state.learned, 10)) for state in (plain, found))
    assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_it_takes_fewer_iterations_to_the_same_bound():
    batch = simulate(random_model("poisson", 2, num_neurons=12), num_trials=8, num_bins=12)
    model = blank("poisson", batch, 2)
    *_, plain = PLAIN(max_iterations=60).iterations(model, batch)
    *_, found = ACCELERATED(max_iterations=20).iterations(model, batch)
    assert found.penalized >= plain.penalized


@given(
    scale=st.sampled_from([0.0, 0.1, 3.0, 100.0, 1e200, float("inf"), float("nan")]),
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["gaussian", "poisson"]),
)
@settings(max_examples=8, deadline=None)
@pytest.mark.filterwarnings("ignore:.*posterior precisions were not positive definite")
def test_whatever_is_proposed_the_bound_does_not_fall(scale, seed, kind):
    """A proposal that is thrown anywhere is not taken, or is better."""
    batch = simulate(random_model(kind, 2), num_trials=3, num_bins=6)
    generator = torch.Generator().manual_seed(seed)

    def anywhere(self: Anderson, point: Tensor, image: Tensor) -> Tensor:
        return image + scale * torch.randn(image.shape, generator=generator, dtype=image.dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Anderson, "proposal", anywhere)
        learner = ACCELERATED(max_iterations=8)
        states = list(learner.iterations(blank(kind, batch, 2), batch))
    assert len(states) == 8
    assert never_falls(penalized(states))
    assert to_vector(states[-1].learned).isfinite().all()


def test_plain_em_is_the_default_and_says_nothing_of_it():
    assert "acceleration" not in to_config(EM(), key="learner")["init_args"]
    assert to_config(EM(acceleration=4), key="learner")["init_args"]["acceleration"] == 4
    batch = simulate(random_model("poisson", 2), num_trials=3, num_bins=6)
    model = blank("poisson", batch, 2)
    with pytest.raises(InputError, match="acceleration must be at least 0, got -1"):
        EM(acceleration=-1).check(model, tiny_data())


def test_it_ends_once_the_bound_rises_no_more_over_several_iterations():
    batch = simulate(random_model("poisson"), num_trials=6, num_bins=12)
    learner = EM(progress=False, acceleration=5, tolerance=1e-4, max_iterations=100)
    bounds = penalized(list(learner.iterations(blank("poisson", batch, 2), batch)))
    least = 5 * 1e-4 * float(batch.weight.sum())
    assert 8 < len(bounds) < 100
    assert bounds[-1] - bounds[-6] < least
    assert (bounds[7:-1] - bounds[2:-6] >= least).all()
