from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import seqvae.models
from contracts.walk import members
from seqvae import EM, InputError, NeuralData, crossvalidate
from seqvae.console import main as cli
from seqvae.crossvalidation import cell as cells
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.job import Cell, Job
from seqvae.crossvalidation.learned import _serving, learn
from seqvae.crossvalidation.plan import suited
from seqvae.crossvalidation.result import CrossValidation
from seqvae.crossvalidation.scoring import seen_data
from seqvae.crossvalidation.table import scores_table, summarize
from seqvae.data import Recording
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import Counts
from seqvae.encoders import FreeGaussian
from seqvae.learning import default_learner
from seqvae.learning.learner import without_progress
from seqvae.models import PCA, VAE, LinearDynamics, Mixture, Model, NonlinearDynamics
from seqvae.observations import Gaussian
from seqvae.plotting import dimension_curve
from seqvae.storage import shards
from seqvae.storage.shards import Shard, locked_share
from seqvae.verbs.crossvalidate import shown
from tiny import LORENZ, in_memory, tiny_data, tiny_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")

LEARNED = [member for member in members(seqvae.models, Model) if member is not Mixture]
QUICK = EM(max_iterations=3, progress=False)
SETTINGS = {
    "val_fraction": 0.2, "batch_size": 8, "eval_batch_size": 64, "coordinated_dropout": None,
    "speckled_fraction": 0.0,
}  # fmt: skip


def small(data=None, **settings):
    given = {
        "models": {"lds": LinearDynamics}, "learners": {"lds": QUICK}, "dims": [1, 2],
        "trial_folds": 2, "neuron_folds": 2, "num_samples": 5, "progress": False,
    }  # fmt: skip
    given |= settings
    models, learners = given.pop("models"), given.pop("learners")
    return crossvalidate(data or tiny_data(), models, learners, **given)


def table(folder) -> pd.DataFrame:
    return pd.read_csv(Path(folder) / "scores.csv").drop(columns="seconds")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole grid."""
    return small(out_dir=str(tmp_path_factory.mktemp("cv") / "cv"))


# --- what comes out ------------------------------------------------------------------------------


def test_folder_holds_table_summary_and_curve(done):
    found = table(done.folder)
    assert list(found["model"].unique()) == ["lds", "mean_rate"]
    assert len(found) == 4 * (2 + 1)
    summary = json.loads((done.folder / "summary.json").read_text())
    assert summary["models"]["lds"]["dims"] == [0, 1, 2]
    assert summary["best_model"] == "lds"
    assert (done.folder / "curve.png").stat().st_size > 5000


def test_curve_shows_scores_choices_and_losses(done):
    scores, losses = dimension_curve(done.summary).axes
    told = done.summary["models"]["lds"]
    np.testing.assert_allclose(scores.lines[0].get_ydata(), told["mean"])
    (ring,) = [line for line in scores.lines if line.get_markersize() == 9]
    (height,) = ring.get_ydata()
    assert height == told["mean"][told["dims"].index(told["chosen_dim"])]
    lost = np.array(told["mean"]) - max(told["mean"])
    drawn = np.asarray(losses.lines[0].get_ydata(), dtype=float)
    np.testing.assert_allclose(drawn, lost, atol=1e-12)
    assert [line.get_xdata().tolist() for line in scores.lines[:1]] == [told["dims"]]
    assert len(scores.collections) == 1  # error bars
    assert scores.figure.get_suptitle().startswith("2 trial folds x 2 of neurons")


def test_the_error_of_a_score_is_that_of_the_sum_over_folds_of_rows(done):
    own = done.scores[done.scores["dim"] == 2]
    each, spikes = own.groupby("trial_fold")["gain_sum"].sum(), own["spikes"].sum()
    # two folds train each on the rows that the other is scored on
    error = 2 * each.std(ddof=1) * (1 / 2 + 1) ** 0.5 / (np.log(2) * spikes)
    assert done.summary["models"]["lds"]["standard_error"][2] == pytest.approx(error)
    assert done.summary["folds"] == {"rows": 2, "neurons": 2}


def test_few_folds_of_rows_are_said_to_carry_no_interval(done):
    (note,) = done.summary["notes"]
    assert note.startswith("2 trial folds cannot carry an interval")
    text = shown(done, {})
    assert f"note: {note}" in text
    assert "not excluded" not in text


def test_what_the_data_exclude_is_in_no_confidence_set():
    dims, folds = [1, 2, 3], range(5)
    gains = {0: 0.0, 1: 50.0, 2: 100.0, 3: 100.2}
    rows = [
        {"cell": {"model": "mean_rate" if dim == 0 else name, "dim": dim, "trial_fold": fold,
                  "neuron_fold": None, "seed": 0},
         "seconds": 1.0, "status": "done",
         "rows": [{"neuron_fold": 0, "log_likelihood": 0.0, "spikes": 100.0, "entries": 100,
                   "left_out": 0, "gain": scale * (gains[dim] + (fold - 2) * dim)}]}
        for name, scale in (("good", 1.0), ("poor", 0.5))
        for dim in (0, *dims) for fold in folds
        if dim or name == "good"
    ]  # fmt: skip
    found = scores_table(rows, unit="bits_per_spike", k_shot=False)
    summary = summarize(
        found, ["good", "poor"], rule="min", unit="bits_per_spike", k_shot=False,
        swept=dict.fromkeys(["good", "poor"], "dimension"),
    )  # fmt: skip
    assert summary["models"]["good"]["confidence_set"] == [2, 3]
    assert summary["best_model"] == "good"
    assert summary["confidence_set"] == ["good"]
    assert summary["differences"]["poor"]["low"] > 0
    assert summary["notes"] == []
    text = shown(CrossValidation(Path("cv"), found, summary), {})
    assert "good: not excluded as the best dimension at 95 %: 2, 3" in text


def test_without_a_model_the_default_of_fit_is_learned(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.default.STEPS", 4)
    found = small(models=None, learners=None, dims=[1], out_dir=str(tmp_path / "cv"))
    assert set(found.scores["model"]) == {"default", "mean_rate"}
    assert (found.scores["status"] == "done").all()
    with pytest.raises(InputError, match=r"learners\.defualt is no model; did you mean 'default'"):
        small(models=None, learners={"defualt": tiny_learner()})


def test_the_default_is_sized_for_the_training_rows_and_learns_from_all_of_them(monkeypatch):
    data = tiny_data()
    division = Division.of(
        data.pool(), scheme="fold_in", rows="auto", trial_folds=2, neuron_folds=2, gap=None, seed=0
    )
    models = {"mine": partial(NonlinearDynamics, dropout=0.1), "lds": LinearDynamics}
    factories, learners = suited(models, {"lds": QUICK}, data=data, division=division)
    assert factories["lds"] is LinearDynamics
    assert factories["mine"].keywords["latent_dim"] == len(division.heldin(0))
    assert factories["mine"].keywords["dropout"] == 0.1
    assert set(learners) == {"mine", "lds"}
    chosen = learners["mine"]
    assert chosen.refit
    assert chosen.select == "val/elbo"
    steps_an_epoch = math.ceil(len(division.train(0).read()) * 0.8 / data.batch_size)
    assert chosen.trainer.keywords["max_epochs"] == pytest.approx(800 / steps_an_epoch, abs=2)


def test_scores_are_ratios_of_sums(done):
    own = done.scores[done.scores["dim"] == 2]
    bits = own["gain_sum"] / (np.log(2) * own["spikes"])
    np.testing.assert_allclose(own["score"], bits)
    total = own["gain_sum"].sum() / (np.log(2) * own["spikes"].sum())
    assert done.summary["models"]["lds"]["mean"][2] == pytest.approx(total)


def test_mean_rate_model_is_dimension_zero_with_the_likelihood_of_scipy(done):
    from scipy.stats import poisson

    recording = tiny_data().source.load()
    division = Division.of(
        recording, scheme="fold_in", rows="auto", trial_folds=2, neuron_folds=2, gap=None, seed=0
    )
    null = done.scores[done.scores["model"] == "mean_rate"]
    assert (null["score"] == 0).all()
    for _, row in null.iterrows():
        part = division.part(int(row["trial_fold"]), int(row["neuron_fold"]))
        mean = division.train(int(row["trial_fold"])).activity.mean((0, 1), dtype=np.float64)
        terms = poisson.logpmf(part.truth, np.broadcast_to(mean, part.truth.shape))
        assert row["log_likelihood_sum"] == pytest.approx(np.nansum(terms), rel=1e-6)
        assert row["entries"] == np.isfinite(part.truth).sum()


def test_real_data_are_scored_in_nats_of_the_models_own_likelihood(tmp_path):
    noise = np.random.default_rng(0).normal(2.0, 3.0, size=(100, 1, 6))
    found = small(
        NeuralData(Arrays(noise, bin_width=1.0)),
        models={"fa": partial(LinearDynamics, observation=Gaussian)},
        learners={"fa": QUICK},
        dims=[1],
        out_dir=str(tmp_path / "cv"),
    )
    null = found.summary["models"]["fa"]["mean"][0]
    assert found.summary["unit"] == "log_likelihood"
    assert null == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * 9.0), abs=0.15)
    # what the mean-rate model leaves is noise, so nothing is gained
    assert abs(found.summary["models"]["fa"]["mean"][1] - null) < 0.1


def test_silent_neuron_is_left_out_and_counted(tmp_path):
    activity = np.random.default_rng(0).poisson(1.0, size=(12, 6, 6)).astype(np.float32)
    activity[:, :, 3] = 0
    data = NeuralData(Arrays(activity, bin_width=0.02))
    with pytest.warns(UserWarning, match="silent"):
        found = small(data, dims=[1], out_dir=str(tmp_path / "cv"))
    assert set(found.scores["left_out"]) == {0, 1}
    assert np.isfinite(found.scores["score"]).all()


def test_shuffled_neurons_gain_nothing(tmp_path):
    generator = np.random.default_rng(0)
    counts = generator.poisson(np.exp(generator.normal(-1, 0.5, size=12)), size=(60, 20, 12))
    data = NeuralData(Arrays(counts.astype(np.float32), bin_width=0.02), batch_size=16)
    found = small(
        data,
        models={"lds": LinearDynamics, "vae": VAE},
        learners={"lds": QUICK, "vae": tiny_learner(5)},
        out_dir=str(tmp_path / "cv"),
    )
    for told in found.summary["models"].values():
        assert abs(np.array(told["mean"])).max() < 0.02


def test_few_shot_score_is_below_the_plain_one_and_above_none(tmp_path):
    data = in_memory(replace(LORENZ, num_trials=40, mean_count=1.0).load())
    found = small(data, dims=[2], k_shot=8, out_dir=str(tmp_path / "cv"))
    told = found.summary["models"]["lds"]
    assert 0.0 < told["k_shot"][1] < told["mean"][1]
    again = small(data, dims=[2], k_shot=8, out_dir=str(tmp_path / "again"))
    pd.testing.assert_frame_equal(table(again.folder), table(found.folder))


@pytest.mark.parametrize("scheme", ["gabriel", "speckled"])
def test_the_other_schemes_run(scheme, tmp_path):
    models = {"pca": PCA} if scheme == "gabriel" else {"lds": LinearDynamics}
    learners = None if scheme == "gabriel" else {"lds": QUICK}
    found = small(
        models=models, learners=learners, dims=[1, 2], scheme=scheme, out_dir=str(tmp_path / "cv")
    )
    assert np.isfinite(found.scores["score"]).all()
    assert len(found.scores) == (4 if scheme == "gabriel" else 2) * 3


def test_encoder_models_are_learned_for_each_fold_of_neurons(tmp_path):
    found = small(
        models={"vae": VAE, "lds": LinearDynamics},
        learners={"vae": tiny_learner(1), "lds": QUICK},
        dims=[1],
        out_dir=str(tmp_path / "cv"),
    )
    assert len(list((found.folder / "cells").glob("*.json"))) == 2 + 2 + 4
    assert (found.scores.groupby("model").size() == 4).all()
    assert set(found.summary["differences"]) == {"vae", "lds"} - {found.summary["best_model"]}


def test_python_needs_no_learner_and_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = crossvalidate(tiny_data(), dims=[1], scheme="gabriel", trial_folds=2, neuron_folds=2)
    assert found.folder.parent == Path("cv")
    assert found.chosen_dim("pca") in (0, 1)
    with pytest.raises(InputError, match="model 'pc' has no chosen dimension; did you mean 'pca'"):
        found.chosen_dim("pc")


# --- nothing leaks -------------------------------------------------------------------------------


def job_for(member: type[Model], recording: Recording, scheme: str, like: Job | None) -> Job:
    division = Division.of(
        recording, scheme=scheme, rows="auto", trial_folds=2, neuron_folds=2, gap=None, seed=0,
    )  # fmt: skip
    if like is not None:  # the very same folds
        for name in ("neuron_fold", "trial_fold", "entry_fold"):
            vars(division)[name] = getattr(like.division, name)
    whole = scheme == "speckled" or member.serves_any_heldin
    kind = default_learner(member)
    learner = tiny_learner(1) if kind.__name__ == "GradientLearner" else kind()
    learner = without_progress(learner)
    if hasattr(learner, "max_iterations"):
        learner = replace(learner, max_iterations=2)
    return Job(
        cell=Cell("m", 2, 0, None if whole else 0, 0), facts={}, factory=member, learner=learner,
        division=division, kind=Counts(), num_samples=3, k_shot=0, settings=SETTINGS,
        folder=Path("unused"),
    )  # fmt: skip


def predictions(job: Job) -> torch.Tensor:
    model = learn(job, job.division.heldin(job.cell.neuron_fold))
    part = job.division.part(0, None if job.division.scheme == "speckled" else 0)
    model = _serving(job, model, part)
    torch.manual_seed(0)
    with torch.no_grad():
        (batch,) = seen_data(part, SETTINGS).batches("all", 1000)
        return model(batch, 2).emission.mean


@pytest.mark.parametrize("scheme", ["fold_in", "speckled"])
@pytest.mark.parametrize("member", LEARNED, ids=lambda m: m.__name__)
@pytest.mark.filterwarnings("ignore")
def test_heldout_values_change_no_prediction(member, scheme):
    recording = LORENZ.load()
    first = job_for(member, recording, scheme, None)
    truth = first.division.part(0, None if scheme == "speckled" else 0).truth
    changed = recording.activity.copy()
    if scheme == "speckled":
        changed[np.isfinite(truth)] += 3
    else:
        rows = np.flatnonzero(first.division.trial_fold == 0)
        block = changed[rows]
        block[np.isfinite(truth)] += 3
        changed[rows] = block
    second = job_for(member, replace(recording, activity=changed), scheme, first)
    assert torch.equal(predictions(first), predictions(second))


# --- jobs ----------------------------------------------------------------------------------------


def test_second_call_does_nothing_again(done, monkeypatch):
    monkeypatch.setattr(cells, "_scored", lambda job: pytest.fail("a finished cell was done again"))
    again = small(out_dir=str(done.folder))
    pd.testing.assert_frame_equal(again.scores, done.scores)


def test_more_sizes_are_added_to_a_folder(done, tmp_path):
    import shutil

    shutil.copytree(done.folder, tmp_path / "cv")
    found = small(out_dir=str(tmp_path / "cv"), dims=[1, 2, 3])
    kept = found.scores[found.scores["dim"] < 3].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, done.scores)
    assert len(found.scores) == 16


def test_order_of_models_and_dims_changes_no_score(done, tmp_path):
    found = small(out_dir=str(tmp_path / "cv"), dims=[2, 0, 1, 1])
    pd.testing.assert_frame_equal(table(found.folder), table(done.folder))


def test_two_processes_find_the_same(done, tmp_path):
    found = small(out_dir=str(tmp_path / "cv"), jobs=2)
    pd.testing.assert_frame_equal(table(found.folder), table(done.folder))


def test_ray_finds_the_same(done, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        found = small(out_dir=str(tmp_path / "cv"), jobs=2, backend="ray")
    finally:
        ray.shutdown()
    pd.testing.assert_frame_equal(table(found.folder), table(done.folder))


def test_shards_together_make_the_grid(done, tmp_path):
    folder = str(tmp_path / "cv")
    first = small(out_dir=folder, shard="1/2")
    assert first.summary is None
    assert 0 < first.num_missing < 6
    assert not (first.folder / "scores.csv").exists()
    last = small(out_dir=folder, shard="2/2")
    assert last.summary == done.summary
    pd.testing.assert_frame_equal(table(folder), table(done.folder))


def test_shares_of_another_division_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SECONDS_OF_PATIENCE", 0.2)
    with locked_share(tmp_path / "cv", Shard(1, 2), key="out_dir"):
        for shard in (None, "2/3"):
            with pytest.raises(InputError, match=r"out_dir .* is in use"):
                small(out_dir=str(tmp_path / "cv"), shard=shard)


def test_failed_cell_is_recorded_and_tried_again(tmp_path, monkeypatch):
    real, folder = cells._scored, str(tmp_path / "cv")

    def sometimes(job):
        if job.cell.dim == 2 and job.cell.trial_fold == 1:
            raise InputError("learning diverged")
        return real(job)

    monkeypatch.setattr(cells, "_scored", sometimes)
    with pytest.warns(UserWarning, match="cells") as told:
        found = small(out_dir=folder)
    words = " ".join(str(warning.message) for warning in told)
    assert "1 cells failed" in words
    assert "learning diverged" in words
    assert "dimension 2 has failed cells and is left out" in words
    assert found.summary["models"]["lds"]["failed_dims"] == [2]
    assert (table(folder)["status"] == "failed").sum() == 1
    monkeypatch.setattr(cells, "_scored", real)
    assert small(out_dir=folder).summary["models"]["lds"]["failed_dims"] == []


def test_model_that_always_fails_is_told(tmp_path, monkeypatch):
    def never(job):
        if job.cell.dim:
            raise ValueError("a defect")
        return real(job)

    real = cells._scored
    monkeypatch.setattr(cells, "_scored", never)
    with (
        pytest.warns(UserWarning, match="cells failed"),
        pytest.raises(InputError, match="every dimension has failed cells"),
    ):
        small(out_dir=str(tmp_path / "cv"))
    (path, *_) = [p for p in (tmp_path / "cv/cells").iterdir() if "Traceback" in p.read_text()]
    assert "a defect" in path.read_text()


def test_damaged_cell_is_done_again(done, tmp_path):
    import shutil

    shutil.copytree(done.folder, tmp_path / "cv")
    victim = sorted((tmp_path / "cv/cells").iterdir())[1]
    victim.write_text(victim.read_text()[:40])
    found = small(out_dir=str(tmp_path / "cv"))
    pd.testing.assert_frame_equal(table(found.folder), table(done.folder))


SCRIPT = """
from seqvae.console import main as cli
cli.main(["crossvalidate", "--data.source.class_path", "Lorenz", "--data.source.num_trials", "40",
          "--data.source.num_val", "10", "--models.lds", "LinearDynamics",
          "--learners.lds.max_iterations", "10", "--dims", "[1, 2]", "--trial_folds", "3",
          "--neuron_folds", "2", "--num_samples", "5", "--jobs", "{jobs}", "--out_dir", "{folder}"])
"""


def begun(folder, *, jobs):
    """A process that cross-validates into a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(jobs=jobs, folder=folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of a grid that nobody killed."""
    folder = tmp_path_factory.mktemp("grid") / "whole"
    assert begun(folder, jobs=1).wait(timeout=300) == 0
    return table(folder)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_grid_goes_on_to_the_same_table(jobs, whole, tmp_path):
    killed = begun(tmp_path / "killed", jobs=jobs)
    cells_dir = tmp_path / "killed/cells"
    until = time.monotonic() + 200
    while time.monotonic() < until and len(list(cells_dir.glob("[!.]*.json"))) < 5:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed/scores.csv").exists()
    assert begun(tmp_path / "killed", jobs=jobs).wait(timeout=300) == 0
    pd.testing.assert_frame_equal(table(tmp_path / "killed"), whole)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dims": []}, "dims must hold a size above 0"),
        ({"dims": [0]}, "dims must hold a size above 0"),
        ({"dims": [-1]}, "dims must be from 0 to"),
        ({"dims": [1_000_000_000]}, "dims must be from 0 to"),
        ({"models": {}}, "models: name at least one"),
        ({"models": {"mean_rate": VAE}, "learners": {}}, "give the model another name"),
        ({"models": {"x": dict}, "learners": {}}, "models.x must be a class of Model"),
        ({"scheme": "gabriel"}, "models.lds: scheme 'gabriel' factorises a matrix"),
        (
            {"scheme": "gabriel", "models": None, "learners": None, "dims": [4]},
            "4 components need as many held-in neurons, but a fold leaves 3",
        ),
        ({"learners": {"ldz": QUICK}}, "learners.ldz is no model; did you mean 'lds'"),
        ({"learners": {"lds": tiny_learner()}}, "models.lds: .*cannot learn a LinearDynamics"),
        ({"models": {"a": LinearDynamics, "b": partial(LinearDynamics, observation=Gaussian)},
          "learners": {}}, "models.b reads real and models.a counts"),
        ({"models": {"a": partial(LinearDynamics, inference="exact")}, "learners": {}},
         "models.a: inference is exact"),
        ({"models": {"a": partial(VAE, encoder=FreeGaussian)}, "learners": {"a": tiny_learner()}},
         "models.a: a posterior of each trial's own says nothing of new trials"),
        ({"trial_folds": 100}, "trial_folds: 100 folds of 24 trials"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"shard": "3/2"}, "shard must be like 2/8"),
        ({"shard": "two"}, "shard must be like 2/8"),
        ({"k_shot": 5, "scheme": "speckled"}, "k_shot needs held-out neurons"),
        ({"ray_remote_args": {"num_gpus": 1.0}}, "are for backend 'ray'"),
        ({"wandb_cells": True}, "wandb_cells needs a project"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_nothing_written(settings, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        small(out_dir=str(tmp_path / "cv"), **settings)
    assert not (tmp_path / "cv").exists()


def test_matrix_with_gaps_is_refused_before_any_cell(tmp_path):
    activity = LORENZ.load().activity.copy()
    activity[3, 4, 2] = np.nan
    data = NeuralData(Arrays(activity, bin_width=0.02))
    with pytest.raises(InputError, match="activity has missing entries, which scheme 'gabriel'"):
        crossvalidate(data, dims=[1], scheme="gabriel", out_dir=str(tmp_path / "cv"))
    assert not (tmp_path / "cv").exists()


def test_folder_of_other_data_is_refused(done):
    other = in_memory(replace(LORENZ, seed=1).load())
    with pytest.raises(InputError, match="holds the cells of other data"):
        small(other, out_dir=str(done.folder))


def test_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and no cross-validation"):
        small(out_dir=str(tmp_path))
    with pytest.raises(InputError, match="is a file"):
        small(out_dir=str(tmp_path / "notes.txt"))


# --- command line and W&B ------------------------------------------------------------------------


def test_command_line_compares_models(tmp_path, capsys):
    flags = {
        "data.source.class_path": "Lorenz", "data.source.num_trials": 24, "data.source.num_val": 8,
        "data.source.num_time_bins": 10, "models.lds": "LinearDynamics", "models.pca": "PCA",
        "learners.lds.max_iterations": 2, "dims": "[1, 2]", "trial_folds": 2, "neuron_folds": 2,
        "num_samples": 3, "out_dir": tmp_path / "cv", "progress": False,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert cli.main(["crossvalidate", *words]) == 0
    out = capsys.readouterr().out
    assert "dimension" in out.splitlines()[1]
    assert "lds" in out
    assert (tmp_path / "cv/summary.json").exists()
    # a configuration written by the command line says the same
    assert cli.main(["crossvalidate", *words, "--print_config"]) == 0
    (tmp_path / "cv.yaml").write_text(capsys.readouterr().out)
    before = (tmp_path / "cv/scores.csv").read_bytes()
    assert cli.main(["crossvalidate", "--config", str(tmp_path / "cv.yaml")]) == 0
    assert (tmp_path / "cv/scores.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flag", "value", "sentence"),
    [
        ("rule", "minimum", "rule must be"),
        ("scheme", "gabriele", "scheme must be"),
        ("models.lds.latent", "3", "models.lds.latent does not exist; did you mean"),
        ("models.x", "LinearDynamic", "LinearDynamics"),
        ("learners.lds.iterations", "3", "learners.lds.iterations does not exist"),
        ("dim", "[1]", "dim does not exist; did you mean"),
    ],
)
def test_command_line_refuses_in_one_sentence(flag, value, sentence, tmp_path, capsys):
    words = ["--data.source.class_path", "Lorenz", "--models.lds", "LinearDynamics", "--dims",
             "[1]", "--out_dir", str(tmp_path / "cv"), f"--{flag}", value]  # fmt: skip
    assert cli.main(["crossvalidate", *words]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert sentence in told[0]


def test_command_line_asks_for_dims(capsys):
    words = ["--data.source.class_path", "Lorenz", "--models.lds", "LinearDynamics"]
    assert cli.main(["crossvalidate", *words]) == 2
    assert "dims is required: give --dims" in capsys.readouterr().err


# --- warm starts ---------------------------------------------------------------------------------


def warm(folder, **settings):
    given = {"models": {"vae": VAE}, "learners": {"vae": tiny_learner(1)}, "warm_starts": True}
    return small(out_dir=str(folder), **{**given, **settings})


def test_larger_size_begins_with_the_parameters_of_the_smaller():
    data = tiny_data()
    data.setup()
    for member in (VAE, LinearDynamics):
        smaller, larger = (member(data.spec, latent_dim=size) for size in (2, 3))
        before = {name: value.clone() for name, value in larger.state_dict().items()}
        larger.begin_from(smaller, leading_blocks=True)
        assert larger.has_begun
        for name, value in smaller.state_dict().items():
            block = tuple(slice(0, size) for size in value.shape)
            now = larger.state_dict()[name]
            assert torch.equal(now[block], value) or bool(value.isnan().all())
            untouched = torch.ones_like(now, dtype=torch.bool)
            untouched[block] = False
            assert torch.equal(now[untouched], before[name][untouched])


def test_warm_start_is_part_of_what_a_cell_hangs_on(tmp_path):
    found = warm(tmp_path / "warm")
    cold = small(
        models={"vae": VAE}, learners={"vae": tiny_learner(1)}, out_dir=str(tmp_path / "cold")
    )
    one, two = (cv.scores.set_index(["dim", "trial_fold", "neuron_fold"]) for cv in (found, cold))
    names = {path.stem for path in (tmp_path / "warm/cells").glob("*.json")}
    other = {path.stem for path in (tmp_path / "cold/cells").glob("*.json")}
    assert len(names & other) == len(names) - 4  # all but those of the larger size
    assert (one.loc[1, "score"] == two.loc[1, "score"]).all()
    assert (one.loc[2, "score"] != two.loc[2, "score"]).all()


def test_interrupted_chain_goes_on_to_the_same_table(tmp_path):
    whole = warm(tmp_path / "whole", dims=[1, 2, 3])
    warm(tmp_path / "part", dims=[1, 2])
    (weights, *_) = sorted((tmp_path / "part/cells").glob("*.pt"))
    weights.unlink()  # is made again, the same
    again = warm(tmp_path / "part", dims=[1, 2, 3], jobs=2)
    pd.testing.assert_frame_equal(table(again.folder), table(whole.folder))
    assert weights.exists()


def test_chain_whose_beginning_fails_is_told(tmp_path, monkeypatch):
    real = cells._scored

    def never(job):
        if job.cell.dim == 1:
            raise InputError("learning diverged")
        return real(job)

    monkeypatch.setattr(cells, "_scored", never)
    with (
        pytest.warns(UserWarning, match="cells failed"),
        pytest.raises(InputError, match="every dimension has failed cells"),
    ):
        warm(tmp_path / "cv")


def test_warm_start_is_refused_where_learning_begins_from_the_data(tmp_path):
    with pytest.raises(InputError, match=r"models.pca is learned by ClosedForm, which begins from"):
        warm(tmp_path / "cv", models={"pca": PCA}, learners=None)
