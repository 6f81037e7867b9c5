from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from linear import kalman_smoother, random_model, simulate
from seqvae import EM, GradientLearner, LinearDynamics, NeuralData, evaluate, fit, infer
from seqvae.config import to_config
from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.sources import Arrays
from seqvae.errors import InputError
from seqvae.learning import default_learner
from seqvae.learning import expectation_maximization as em
from seqvae.learning.observers import Observer, Stage
from seqvae.learning.validation import validation_scores
from seqvae.models import VAE, SequentialVAE
from seqvae.observations import Gaussian, Poisson
from seqvae.runs import Run
from seqvae.types import Batch
from tiny import LORENZ, in_memory, tiny_data, weights
from toy import toy_spec

QUIET = partial(EM, progress=False)
KINDS = {"gaussian": Gaussian, "poisson": Poisson}


def blank(kind: str, batch: Batch, size: int) -> LinearDynamics:
    """A model for these trials that has learned nothing."""
    spec = toy_spec(
        num_neurons=batch.target.shape[2],
        num_inputs=batch.inputs.shape[2],
        num_time_bins=batch.target.shape[1],
    )
    return LinearDynamics(spec, latent_dim=size, observation=KINDS[kind])


def penalized(states: list[em.Iteration]) -> Tensor:
    return torch.tensor([state.penalized for state in states], dtype=torch.float64)


def never_falls(bounds: Tensor) -> bool:
    return bool((bounds.diff() >= -1e-9 * bounds[-1].abs()).all())


@pytest.mark.parametrize("lengths", [None, [25, 9, 25, 14, 2, 25, 1, 20]])
def test_exact_em_never_lowers_the_log_likelihood(lengths):
    truth = random_model("gaussian", 2, num_inputs=1)
    batch = simulate(truth, num_trials=8, num_bins=25, lengths=lengths, missing=0.1)
    learner = QUIET(max_iterations=100, tolerance=0.0, ridge=0.0)
    states = list(learner.iterations(blank("gaussian", batch, 2), batch))
    assert len(states) >= 90
    assert never_falls(penalized(states))
    last = states[-2].learned
    total = sum(
        kalman_smoother(
            last, batch.target[i, :n], batch.weight[i, :n], batch.inputs[i, :n]
        ).log_likelihood
        for i, n in enumerate(batch.lengths.tolist())
    )
    assert states[-1].penalized == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("lengths", [None, [25, 9, 25, 14, 2, 25, 1, 20]])
def test_variational_em_never_lowers_the_penalised_bound(lengths):
    truth = random_model("poisson", 2, num_inputs=1)
    batch = simulate(truth, num_trials=8, num_bins=25, lengths=lengths, missing=0.1)
    learner = QUIET(max_iterations=100, tolerance=0.0)
    states = list(learner.iterations(blank("poisson", batch, 2), batch))
    assert len(states) == 100
    assert never_falls(penalized(states))


def test_laplace_em_improves_the_bound():
    truth = random_model("poisson", 2)
    batch = simulate(truth, num_trials=8, num_bins=25)
    states = list(QUIET(e_step="laplace").iterations(blank("poisson", batch, 2), batch))
    assert states[-1].penalized > states[0].penalized


def edge_case(name: str) -> tuple[Batch, int]:
    """The batch of an edge case, and the size of the model."""
    bins = {"one bin": 1, "two bins": 2, "odd bins": 13}.get(name, 12)
    trials = 1 if name == "one trial" else 6
    truth = random_model("poisson", 2, num_neurons=4)
    missing = 0.2 if name == "part of a bin missing" else 0.0
    batch = simulate(truth, num_trials=trials, num_bins=bins, missing=missing)
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
    return batch, {"more latents than neurons": 6, "rank-deficient": 4}.get(name, 2)


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
        "rank-deficient",
        "constant input",
    ],
)
def test_edge_cases_are_learned(name):
    batch, size = edge_case(name)
    learner = QUIET(max_iterations=40, tolerance=0.0)
    torch.manual_seed(0)
    states = list(learner.iterations(blank("poisson", batch, size), batch))
    assert never_falls(penalized(states))
    for part in states[-1].learned:
        for value in vars(part).values():
            assert value.isfinite().all()
    if name == "silent neuron":
        emission = states[-1].learned.emission
        assert emission.loadings[2].abs().max() < 1e-3
        assert float(emission.bias[2]) == pytest.approx(np.log(1e-9))
    if name == "missing trial":
        assert abs(float(states[-1].terms.elbo[1])) < 1e-8


def test_learning_ends_when_the_bound_rises_no_more():
    batch = simulate(random_model("poisson"), num_trials=6, num_bins=12)
    model = blank("poisson", batch, 2)
    few = list(QUIET(tolerance=1e-3).iterations(model, batch))
    more = list(QUIET(tolerance=1e-4).iterations(model, batch))
    assert 3 < len(few) < len(more) < 100
    rise = penalized(few).diff() / float(batch.weight.sum())
    assert rise[-1] < 1e-3
    assert [state.iteration for state in more] == list(range(1, len(more) + 1))


def test_with_patience_validation_ends_learning_and_its_best_iteration_is_kept(tmp_path):
    batch = simulate(random_model("poisson"), num_trials=8, num_bins=12)
    data = NeuralData(Arrays(Recording(batch.target.numpy())), val_fraction=0.5, heldout=[0])
    model = partial(LinearDynamics, latent_dim=3)  # of four trials: over-fits
    quiet = QUIET(validate_every=1, max_iterations=30, tolerance=0.0)
    whole = fit(data, model, quiet, run_dir=str(tmp_path / "whole"))
    scores = [row["val/heldin_elbo"] for row in whole.history]
    best = int(np.argmax(scores))
    assert best + 3 < len(scores) == 30
    chosen = fit(data, model, replace(quiet, patience=3), run_dir=str(tmp_path / "chosen"))
    assert len(chosen.history) == best + 4
    short = replace(quiet, max_iterations=best + 1)
    again = fit(data, model, short, run_dir=str(tmp_path / "short"))
    kept, last = (weights(run.files.weights)["state_dict"] for run in (chosen, again))
    assert_close(kept, last, rtol=0, atol=0)
    found = validation_scores(chosen.model(), data)["val/heldin_elbo"]
    assert found == pytest.approx(scores[best], rel=1e-9)


def test_patience_needs_validation_trials_and_takes_its_own_in_a_cross_validation():
    batch = simulate(random_model("poisson"), num_trials=8, num_bins=12)
    data = NeuralData(Arrays(Recording(batch.target.numpy())), val_fraction=0.0)
    with pytest.raises(InputError, match="patience needs validation trials"):
        fit(data, partial(LinearDynamics, latent_dim=1), QUIET(patience=1), in_memory=True)
    assert QUIET(patience=1).selects
    assert not QUIET().selects
    assert "patience" not in to_config(QUIET())["init_args"]


def test_a_model_that_has_begun_is_learned_on_from_its_own_parameters():
    batch = simulate(random_model("gaussian"), num_trials=6, num_bins=12)
    model, larger = (blank("gaussian", batch, size) for size in (2, 3))
    settings = {"tolerance": 0.0, "ridge": 0.0}  # without a penalty no coordinates are better
    *_, last = QUIET(max_iterations=60, **settings).iterations(model, batch)
    model.take(last.learned)
    short = QUIET(max_iterations=3, **settings)
    anew = penalized(list(short.iterations(model, batch)))
    model.has_begun = True
    goes_on = penalized(list(short.iterations(model, batch)))
    assert goes_on[0] >= last.penalized - 1e-9 * abs(last.penalized)
    assert goes_on[0] > anew[-1] + 1.0
    larger.begin_from(model, leading_blocks=True)
    assert len(list(short.iterations(larger, batch))) == 3


def test_fewer_iterations_than_a_start_takes():
    batch = simulate(random_model("poisson"), num_trials=6, num_bins=12)
    assert len(list(QUIET(max_iterations=2).iterations(blank("poisson", batch, 2), batch))) == 2


def test_learning_from_rare_spikes_beats_the_mean_rates():
    truth = random_model("poisson", 2, num_neurons=40)
    rare = replace(truth.emission, loadings=1.6 * truth.emission.loadings)
    truth = truth._replace(emission=replace(rare, bias=rare.bias - 4.5))
    batch = simulate(truth, num_trials=40, num_bins=60)
    assert float(batch.target.mean()) < 0.05
    states = list(QUIET(max_iterations=15).iterations(blank("poisson", batch, 2), batch))
    mean = batch.target.mean((0, 1))
    null = torch.distributions.Poisson(mean).log_prob(batch.target).sum()
    bits = (states[-1].penalized - null) / batch.target.sum() / np.log(2)
    assert bits > 0.1


# --- the verbs ------------------------------------------------------------------------------------


def rows_of(run: Run) -> list[dict[str, str]]:
    with run.files.history.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_fit_leaves_a_run_that_answers_the_verbs(tmp_path):
    model = partial(LinearDynamics, latent_dim=3)
    run = fit(
        tiny_data(), model, QUIET(max_iterations=6, validate_every=2), run_dir=str(tmp_path / "run")
    )
    left = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "weights.pt", "history.csv", "provenance.json", "figures"} <= left
    drawn = {path.stem for path in run.files.figures.iterdir()}
    assert drawn == {"learning_curves", "rasters_and_rates", "rate_traces", "latents"}
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [str(i) for i in range(1, 7)]
    assert never_falls(torch.tensor([float(row["bound"]) for row in rows], dtype=torch.float64))
    assert [bool(row["val/co_bps"]) for row in rows] == [False, True] * 3
    assert weights(run.files.weights)["step"] == 6

    loaded = Run(run.folder)
    assert loaded.config["learner"]["class_path"] == "seqvae.learning.EM"
    assert loaded.config["learner"]["init_args"]["max_iterations"] == 6
    twin = loaded.model()
    batch = run.data().batch([0, 1])
    for name in ("mean", "variance"):
        one, other = (
            getattr(m(batch).latents["latents"].posterior, name) for m in (run.model(), twin)
        )
        assert torch.equal(one, other)
    posterior = infer(loaded, num_samples=3)
    assert posterior["rates"].dims == ("trial", "time", "neuron")
    assert np.isfinite(posterior["latents_mean"]).all()
    metrics = evaluate(loaded, num_samples=3)
    assert {"elbo", "co_bps", "rates_r2"} <= set(metrics)
    assert {"mean_rate", "smoothing_glm"} <= set(metrics["gain"])


def test_weights_are_in_canonical_form(tmp_path):
    model = partial(LinearDynamics, latent_dim=3)
    run = fit(in_memory(), model, QUIET(max_iterations=3), run_dir=str(tmp_path / "run"))
    loadings = run.model().state_space.emission.loadings
    square = loadings.mT @ loadings
    assert_close(square, square.diagonal().diag(), rtol=0, atol=1e-8)
    assert (square.diagonal().diff() <= 0).all()


def test_the_learner_is_the_models_own(tmp_path):
    assert default_learner(LinearDynamics) is EM
    assert default_learner(VAE) is default_learner(SequentialVAE) is GradientLearner
    with pytest.raises(InputError, match="no learner knows dict"):
        default_learner(dict)
    data = in_memory()
    run = fit(data, partial(LinearDynamics, latent_dim=2), run_dir=str(tmp_path / "run"))
    assert run.config["learner"]["class_path"] == "seqvae.learning.EM"


@pytest.mark.parametrize(
    ("model", "learner", "told"),
    [
        (
            LinearDynamics,
            GradientLearner(),
            "GradientLearner cannot learn a LinearDynamics; use EM",
        ),
        (VAE, EM(), "EM cannot learn a VAE; use GradientLearner"),
        (LinearDynamics, EM(max_iterations=0), "max_iterations must be at least 1, got 0"),
        (LinearDynamics, EM(validate_every=-1), "validate_every must be at least 0, got -1"),
        (LinearDynamics, EM(tolerance=-1.0), "tolerance must be zero or positive, got -1"),
        (LinearDynamics, EM(ridge=float("inf")), "ridge must be zero or positive, got inf"),
        (LinearDynamics, EM(patience=0), "patience must be at least 1 or null, got 0"),
        (
            LinearDynamics,
            EM(patience=1, validate_every=0),
            "set validate_every to 1 or more",
        ),
        (LinearDynamics, EM(e_step="exact"), "exact for a Gaussian observation only"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(model, learner, told, tmp_path):
    with pytest.raises(InputError, match=told):
        fit(in_memory(), model, learner, run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_neuron_without_a_value_is_refused(tmp_path):
    recording = LORENZ.load()
    activity = recording.activity.copy()
    activity[:, :, 4] = np.nan
    data = NeuralData(Arrays(Recording(activity, 0.01, split=recording.split)))
    with pytest.raises(InputError, match="neuron 4"):
        fit(data, LinearDynamics, QUIET(), run_dir=str(tmp_path / "run"))


def test_gaussian_data_and_inputs_and_gaps_are_learned_by_the_verb(tmp_path):
    batch = simulate(random_model("gaussian", 2, num_inputs=1), num_trials=20, num_bins=9)
    activity = batch.target.numpy().copy()
    activity[3, 5:] = np.nan
    activity[4, 2, 1] = np.nan
    source = Arrays(activity, 0.02, inputs=batch.inputs.numpy())
    data = NeuralData(source, heldout=[1], forecast_bins=2)
    model = partial(LinearDynamics, latent_dim=2, observation=Gaussian)
    run = fit(data, model, QUIET(max_iterations=5), run_dir=str(tmp_path / "run"))
    metrics = evaluate(run, data, num_samples=5)
    assert np.isfinite(metrics["elbo"])
    assert (
        metrics["heldout_log_likelihood"]
        > metrics["baselines"]["mean_rate"]["heldout_log_likelihood"]
    )


def test_what_inference_does_not_see_does_not_reach_it(tmp_path):
    run = fit(tiny_data(), LinearDynamics, QUIET(max_iterations=2), run_dir=str(tmp_path / "run"))
    data = run.data()
    batch = data.batch(data.trials("val"))
    other = batch.target.clone()
    other[..., list(data.spec.heldout)] = 9.0
    before, after = (
        run.model()(b).latents["latents"] for b in (batch, replace(batch, target=other))
    )
    assert torch.equal(before.posterior.mean, after.posterior.mean)


def test_an_interrupt_leaves_what_was_learned(tmp_path, monkeypatch):
    def stop(*_: object) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(em, "validation_scores", stop)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_data(), LinearDynamics, QUIET(validate_every=5), run_dir=str(folder))
    run = Run(folder)
    assert weights(run.files.weights)["step"] == 5
    assert len(rows_of(run)) == 5
    assert run.model().initialized


def test_the_same_fit_gives_the_same_weights_and_a_resumed_one_begins_anew(tmp_path):
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        fit(tiny_data(), LinearDynamics, QUIET(max_iterations=4), run_dir=folder)
    fit(tiny_data(), LinearDynamics, QUIET(max_iterations=4), run_dir=folders[0], resume=True)
    one, two = (weights(f"{folder}/weights.pt")["state_dict"] for folder in folders)
    for name, value in one.items():
        assert torch.equal(value, two[name])


def test_threads_are_as_many_after_a_fit_as_before(tmp_path):
    before = torch.get_num_threads()
    fit(tiny_data(), LinearDynamics, QUIET(max_iterations=1), run_dir=str(tmp_path / "run"))
    assert torch.get_num_threads() == before


def test_the_command_line_takes_the_models_own_learner(tmp_path, capsys):
    command = ["fit", "--data.source", "Lorenz", "--model", "LinearDynamics"]
    assert main([*command, "--learner.max_iterations", "7", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "class_path: seqvae.learning.EM" in printed
    assert "max_iterations: 7" in printed
    assert main([*command, "--learner.max_iteration", "7"]) == 2
    assert "learner.max_iteration does not exist" in capsys.readouterr().err
    assert main([*command, "--learner", "GradientLearner", "--run_dir", str(tmp_path / "no")]) == 2
    assert "use EM" in capsys.readouterr().err
    (tmp_path / "lds.yaml").write_text(
        "data: {source: {class_path: seqvae.data.sources.Lorenz}}\n"
        "model: {class_path: seqvae.models.LinearDynamics}\n"
        "learner: {ridge: 0.5}\n"
    )
    assert main(["fit", "--config", str(tmp_path / "lds.yaml"), "--print_config"]) == 0
    assert "ridge: 0.5" in capsys.readouterr().out


def test_more_starts_never_end_at_a_lower_bound_and_one_is_as_before():
    batch = simulate(random_model("poisson", 2), num_trials=4, num_bins=6)
    model = blank("poisson", batch, 2)
    ends = []
    for num_starts in (1, 3):
        torch.manual_seed(0)
        *_, last = QUIET(max_iterations=5, num_starts=num_starts).iterations(model, batch)
        ends.append(last.penalized)
    assert ends[1] >= ends[0]
    assert "num_starts" not in to_config(EM(), key="learner")["init_args"]
    assert to_config(EM(num_starts=2), key="learner")["init_args"]["num_starts"] == 2
    with pytest.raises(InputError, match="num_starts must be at least 1, got 0"):
        QUIET(num_starts=0).check(blank("poisson", batch, 2), tiny_data())


def test_observers_hear_of_a_validation_with_its_scores() -> None:
    heard: list[dict[str, float | int]] = []

    class Ear(Observer):
        def progress(self, stage: Stage) -> None:
            heard.append(dict(stage.rows[-1]))

    data = tiny_data()
    data.setup()
    model = LinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    EM(max_iterations=4, tolerance=0.0, validate_every=2, progress=False).learn(
        model, data, observers=[Ear()]
    )
    assert [row["step"] for row in heard] == [2, 4, 4]
    assert all(np.isfinite(row["val/heldin_elbo"]) for row in heard)
    assert heard[-1]["val/heldin_elbo"] == validation_scores(model, data)["val/heldin_elbo"]
