from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seqvae import EM, SwitchingEM, SwitchingLinearDynamics, evaluate, fit, infer
from seqvae.data.sources import SimulatedLinearDynamics
from seqvae.errors import InputError
from seqvae.learning import default_learner
from seqvae.learning.expectation_maximization import Iteration
from seqvae.models import LinearDynamics
from seqvae.observations import Gaussian, Poisson
from seqvae.runs import Run
from seqvae.types import Batch
from switching import random_switching, simulate_switching
from tiny import in_memory, tiny_data, weights
from toy import toy_spec

QUIET = partial(SwitchingEM, progress=False, num_starts=2, linear_iterations=4)
KINDS = {"gaussian": Gaussian, "poisson": Poisson}


def blank(kind: str, batch: Batch, size: int = 2, **options) -> SwitchingLinearDynamics:
    """A model for these trials that has learned nothing."""
    spec = toy_spec(
        num_neurons=batch.target.shape[2],
        num_inputs=batch.inputs.shape[2],
        num_time_bins=batch.target.shape[1],
    )
    return SwitchingLinearDynamics(spec, latent_dim=size, observation=KINDS[kind], **options)


def penalized(states: list[Iteration]) -> Tensor:
    return torch.tensor([state.penalized for state in states], dtype=torch.float64)


def never_falls(bounds: Tensor) -> bool:
    return bool((bounds.diff() >= -1e-9 * bounds[-1].abs()).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [25, 9, 25, 14, 2, 25, 1, 20]])
def test_learning_never_lowers_the_penalised_bound(kind, lengths):
    truth = random_switching(kind, num_inputs=1)
    batch = simulate_switching(truth, num_trials=8, num_bins=25, lengths=lengths, missing=0.1)
    learner = QUIET(max_iterations=100, tolerance=0.0)
    states = list(learner.iterations(blank(kind, batch), batch))
    assert len(states) >= 90
    assert never_falls(penalized(states))


def test_laplace_improves_the_bound():
    batch = simulate_switching(random_switching("poisson"), num_trials=8, num_bins=25)
    learner = QUIET(e_step="laplace", max_iterations=15)
    states = list(learner.iterations(blank("poisson", batch), batch))
    assert states[-1].penalized > states[0].penalized


def test_one_state_is_learned_as_linear_dynamics():
    batch = simulate_switching(random_switching("gaussian"), num_trials=8, num_bins=25)
    learner = QUIET(
        shared_bins=0.0, linear_iterations=5, max_iterations=10, tolerance=0.0, passes=1
    )
    model = blank("gaussian", batch, num_states=1)
    *_, found = learner.iterations(model, batch)
    linear = LinearDynamics(model.spec, latent_dim=2, observation=Gaussian)
    *_, wanted = EM(max_iterations=16, tolerance=0.0, progress=False).iterations(linear, batch)
    # both have taken the same steps, but for those of the held path, which add some
    assert found.penalized == pytest.approx(wanted.penalized, rel=2e-4)


def edge_case(name: str) -> tuple[Batch, dict[str, int]]:
    """The batch of an edge case, and the sizes of the model."""
    bins = {"one bin": 1, "two bins": 2, "odd bins": 13}.get(name, 12)
    trials = 1 if name == "one trial" else 6
    truth = random_switching("poisson", num_neurons=4)
    missing = 0.2 if name == "part of a bin missing" else 0.0
    batch = simulate_switching(truth, num_trials=trials, num_bins=bins, missing=missing)
    if name == "silent neuron":
        batch.target[..., 2] = 0
    elif name == "silent trial":
        batch.target[1] = 0
    elif name == "missing trial":
        batch.target[1] = batch.weight[1] = 0
    elif name == "rank-deficient":
        batch.target[..., 1:] = batch.target[..., :1]
    elif name == "constant input":
        batch = replace(batch, inputs=torch.ones(trials, bins, 2, dtype=torch.float64))
    sizes = {"more latents than neurons": {"size": 6}, "many states": {"num_states": 9}}
    return batch, sizes.get(name, {})


@pytest.mark.parametrize(
    "name",
    [
        "one bin",
        "two bins",
        "odd bins",
        "one trial",
        "silent neuron",
        "silent trial",
        "missing trial",
        "part of a bin missing",
        "more latents than neurons",
        "many states",
        "rank-deficient",
        "constant input",
    ],
)
def test_edge_cases_are_learned(name):
    batch, sizes = edge_case(name)
    torch.manual_seed(0)
    learner = QUIET(max_iterations=25, tolerance=0.0, num_starts=1)
    states = list(learner.iterations(blank("poisson", batch, **sizes), batch))
    assert never_falls(penalized(states))
    model = blank("poisson", batch, **sizes)
    model.take(learner.finished(states[-1], batch))
    for parameter in model.parameters():
        assert parameter.isfinite().all()
    if name == "silent neuron":
        assert float(model.state_space.emission.bias[2]) < np.log(1e-8)
    if name == "missing trial":
        assert abs(float(states[-1].terms.elbo[1])) < 1e-9


def test_without_shared_bins_a_state_that_is_not_visited_stays_finite():
    batch = simulate_switching(random_switching("poisson"), num_trials=3, num_bins=10)
    learner = QUIET(max_iterations=25, tolerance=0.0, num_starts=1, shared_bins=0.0)
    states = list(learner.iterations(blank("poisson", batch, num_states=6), batch))
    for value in vars(states[-1].learned.dynamics).values():
        assert value.isfinite().all()


def test_the_seed_decides_the_fit_and_nothing_else_does():
    batch = simulate_switching(random_switching("poisson"), num_trials=6, num_bins=20)
    model = blank("poisson", batch)
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        np.random.seed(noise)  # noqa: NPY002
        *_, last = QUIET(max_iterations=6).iterations(model, batch)
        found.append(last.learned.dynamics.transition)
    assert torch.equal(*found)


def test_states_come_in_the_order_of_the_time_spent_in_them():
    batch = simulate_switching(random_switching("poisson", num_states=3), num_trials=8, num_bins=25)
    model = blank("poisson", batch, num_states=3)
    learner = QUIET(max_iterations=8)
    *_, last = learner.iterations(model, batch)
    model.take(learner.finished(last, batch))
    spent = model(batch).latents["states"].posterior.probabilities.sum((0, 1))
    assert (spent.diff() < 2.0).all()
    loadings = model.state_space.emission.loadings
    square = loadings.mT @ loadings
    assert_close(square, square.diagonal().diag(), rtol=0, atol=1e-8)


# --- the verbs ------------------------------------------------------------------------------------


def test_a_fit_leaves_a_run_that_answers_the_verbs(tmp_path):
    model = partial(SwitchingLinearDynamics, latent_dim=2)
    learner = QUIET(max_iterations=6, validate_every=2)
    run = fit(tiny_data(), model, learner, run_dir=str(tmp_path / "run"))
    left = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "weights.pt", "history.csv", "provenance.json", "figures"} <= left
    drawn = {path.stem for path in run.files.figures.iterdir()}
    assert {"learning_curves", "rasters_and_rates", "rate_traces", "latents", "states"} == drawn
    header = run.files.history.read_text().splitlines()[0].split(",")
    assert {"bound", "train/kl/latents", "train/kl/states", "val/co_bps"} <= set(header)
    assert weights(run.files.weights)["step"] == 6

    loaded = Run(run.folder)
    assert loaded.config["learner"]["class_path"] == "seqvae.learning.SwitchingEM"
    posterior = infer(loaded, num_samples=3)
    assert posterior["states"].dims == ("trial", "time")
    assert set(np.unique(posterior["states"])) <= {0.0, 1.0}
    metrics = evaluate(loaded, num_samples=3)
    assert {"elbo", "kl/states", "co_bps", "rates_r2"} <= set(metrics)


def test_the_learner_is_the_models_own():
    assert default_learner(SwitchingLinearDynamics) is SwitchingEM
    assert default_learner(LinearDynamics) is EM


@pytest.mark.parametrize(
    ("model", "learner", "told"),
    [
        (
            SwitchingLinearDynamics,
            EM(),
            "EM cannot learn a SwitchingLinearDynamics; use SwitchingEM",
        ),
        (LinearDynamics, SwitchingEM(), "SwitchingEM cannot learn a LinearDynamics; use EM"),
        (SwitchingLinearDynamics, QUIET(num_starts=0), "num_starts must be at least 1, got 0"),
        (SwitchingLinearDynamics, QUIET(passes=0), "passes must be at least 1, got 0"),
        (SwitchingLinearDynamics, QUIET(concentration=1.0), "concentration must be above 1, got 1"),
        (SwitchingLinearDynamics, QUIET(stickiness=-1.0), "stickiness must be zero or positive"),
        (SwitchingLinearDynamics, QUIET(shared_bins=float("nan")), "shared_bins must be zero or"),
        (SwitchingLinearDynamics, QUIET(max_iterations=0), "max_iterations must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(model, learner, told, tmp_path):
    with pytest.raises(InputError, match=told):
        fit(in_memory(), model, learner, run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_gaussian_simulations_are_learned_by_the_verb(tmp_path):
    source = SimulatedLinearDynamics(
        num_states=2, observation="gaussian", num_trials=20, num_val=6, num_time_bins=15,
        num_neurons=8, num_heldout=2,
    )  # fmt: skip
    model = partial(SwitchingLinearDynamics, latent_dim=2, observation=Gaussian)
    run = fit(tiny_data(source), model, QUIET(max_iterations=5), run_dir=str(tmp_path / "run"))
    metrics = evaluate(run, num_samples=5)
    mean_rate = metrics["baselines"]["mean_rate"]
    assert metrics["heldout_log_likelihood"] > mean_rate["heldout_log_likelihood"]
