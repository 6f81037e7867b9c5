"""Settings that are searched in each cell of a cross-validation, on its training rows only."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from seqvae import EM, PCA, VAE, InputError, LinearDynamics, crossvalidate, tune
from seqvae.crossvalidation.cell import run_job
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.learned import data_of, searched
from seqvae.crossvalidation.plan import make_plan
from seqvae.crossvalidation.scoring import mean_rate_of, score
from seqvae.crossvalidation.sizes import Sizes
from seqvae.encoders import MLP, DeltaHead
from seqvae.verbs import searched_fit
from seqvae.verbs.cell_search import CellSearch
from seqvae.verbs.crossvalidate import shown
from tiny import tiny_data, tiny_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")

LDS = {"lds": EM(max_iterations=2, progress=False)}
SPACE = {"model.optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True},
         "model.decoder_dims": [[4], [8]]}  # fmt: skip
POINT = partial(VAE, encoder=partial(MLP, head=DeltaHead))
SEARCHED = {"num_tuning_fits": 2, "spaces": {"vae": SPACE, "lds": {}}}


def grid(folder, **settings):
    given = {"dims": [2], "trial_folds": 2, "neuron_folds": 2, "num_samples": 3,
             "progress": False, **SEARCHED, **settings}  # fmt: skip
    models = given.pop("models", {"vae": VAE, "lds": LinearDynamics})
    learners = {"vae": given.pop("learner", tiny_learner(2)), **LDS}
    learners = {name: one for name, one in learners.items() if name in models}
    return crossvalidate(tiny_data(), models, learners, out_dir=str(folder), **given)


def cell_of(scheme, folder):
    """The job of a cell, and all that it needs."""
    data = tiny_data()
    division = Division.of(data.pool(), scheme=scheme, rows="auto", trial_folds=2, neuron_folds=2,
                           gap=None, seed=0)  # fmt: skip
    plan = make_plan(
        data, division, {"vae": VAE}, {"vae": tiny_learner(2)}, seeds=1, num_samples=3, k_shot=0,
        sizes={"vae": Sizes("latent_dim", [2], True)}, warm_starts=False, folder=folder,
        searches={"vae": CellSearch(2, SPACE, "model.latent_dim")},
    )  # fmt: skip
    return next(job for chain in plan.chains for job in chain if job.search is not None)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return grid(tmp_path_factory.mktemp("cv") / "cv")


def table(found):
    return found.scores.drop(columns="seconds")


def test_each_cell_tells_which_settings_were_best(done):
    assert len(done.tuned) == 2 * 2
    assert set(done.tuned["model"]) == {"vae"}
    assert done.tuned["model.optimizer.lr"].between(1e-3, 1e-1).all()
    assert ((done.tuned["gain"] > 0) == (done.tuned["best_fit"] > 0)).all()
    pd.testing.assert_frame_equal(
        pd.read_csv(done.folder / "tuned.csv")[["gain", "best_fit"]],
        done.tuned[["gain", "best_fit"]],
    )
    results = [json.loads(path.read_text()) for path in (done.folder / "cells").glob("*.json")]
    gains = {one["tuned"]["gain"] for one in results if one["cell"]["model"] == "vae"}
    assert gains == set(done.tuned["gain"])
    assert not list((done.folder / "cells").glob("*.study"))
    num_former = (done.tuned["best_fit"] == 0).sum()
    assert f"settings: in {num_former} of 4 cells none scored higher" in shown(done, {})


def test_what_is_not_searched_is_what_it_was(done, tmp_path):
    plain = grid(tmp_path / "cv", models={"lds": LinearDynamics}, num_tuning_fits=None, spaces=None)
    assert plain.tuned is None
    assert not (plain.folder / "tuned.csv").exists()
    assert list(plain.scores) == list(done.scores)
    keys = [{path.stem for path in (one.folder / "cells").iterdir()} for one in (plain, done)]
    assert keys[0] < keys[1]
    of_lds = table(done)[done.scores["model"] != "vae"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_lds, table(plain))


def test_the_cost_is_told_before_it_is_paid(tmp_path, monkeypatch, caplog):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(searched_fit, "validated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid(tmp_path / "cv", num_tuning_fits=20)
    assert "20 fits in each of 4 cells: 80 fits" in caplog.text


def test_a_cell_scores_the_best_fit_of_a_search_on_its_training_rows(tmp_path):
    job = cell_of("fold_in", tmp_path / "cv")
    (tmp_path / "cv/cells").mkdir(parents=True)
    found = run_job(job)
    study = tune(
        data_of(job, job.division.heldin(0)), partial(VAE, latent_dim=2), tiny_learner(2),
        space=SPACE, num_fits=2, seed=job.seed, out_dir=str(tmp_path / "study"), progress=False,
    )  # fmt: skip
    best = study.best.number
    assert found["tuned"] == {
        "fit": best, "gain": study.gain, "settings": dict(study.settings_of(best))
    }  # fmt: skip
    model, part = study.run().model(), job.division.part(0, 0)
    model.seed = job.seed
    null = mean_rate_of(job.division.train(0), job.kind)
    scored = score(model, part, null, num_samples=3, settings=dict(job.settings))
    assert found["rows"][0]["log_likelihood"] == scored.log_likelihood


@pytest.mark.parametrize("scheme", ["fold_in", "speckled"])
def test_what_a_cell_holds_out_chooses_nothing(scheme, tmp_path):
    """Other values of what is scored, and of the neurons held out of the rows that validate."""
    job = cell_of(scheme, tmp_path / "one")
    recording = job.division.recording
    heldin = job.division.heldin(job.cell.neuron_fold)
    altered = job.division.scored(0)
    if scheme == "fold_in":
        data = data_of(job, heldin)
        data.setup()
        training = np.flatnonzero(job.division.trial_fold != 0)
        heldout = sorted(set(range(recording.num_neurons)) - set(heldin))
        altered[np.ix_(training[data.trials("val")], range(recording.num_time_bins), heldout)] = (
            True
        )
    activity = np.where(altered, 9, recording.read()).astype(np.float32)
    other = replace(
        job,
        division=job.division.holding(replace(recording, activity=activity)),
        folder=tmp_path / "other",
    )
    one, two = searched(job, heldin), searched(other, heldin)
    assert one.fit == two.fit
    assert one.gain == two.gain
    assert one.settings == two.settings
    other_state = two.model.state_dict()
    assert all(
        torch.equal(value, other_state[name]) for name, value in one.model.state_dict().items()
    )


def test_an_interrupted_cell_goes_on_where_its_search_was(done, tmp_path, monkeypatch):
    real, calls = searched_fit.validated, []

    def sometimes(*words, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words, **settings)

    monkeypatch.setattr(searched_fit, "validated", sometimes)
    with pytest.raises(KeyboardInterrupt):
        grid(tmp_path / "cv")
    (study,) = (tmp_path / "cv/cells").glob("*.study")
    assert len(list(study.glob("fits/*.json"))) == 1
    again = grid(tmp_path / "cv")
    assert len(calls) == 2 + 1 + 3 * 2
    pd.testing.assert_frame_equal(table(again), table(done))
    pd.testing.assert_frame_equal(again.tuned, done.tuned)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_tuning_fits": None}, "spaces are searched by num_tuning_fits in each cell"),
        ({"num_tuning_fits": 1}, "num_tuning_fits must be at least 2, got 1"),
        ({"spaces": {}}, r"models\.lds: no setting of it is searched by default; say in"),
        ({"spaces": {"vea": SPACE}}, r"spaces\.vea is no model; did you mean 'vae'"),
        ({"spaces": {"vae": {"model.latent_dim": [1, 2]}}}, "is what dims are for; leave it out"),
        ({"spaces": {"vae": {"model.dropuot": [0, 1]}}}, r"models\.vae: space: model\.dropuot"),
        (
            {
                "models": {"vae": POINT},
                "spaces": None,
                "learner": tiny_learner(2, select="val/log_likelihood"),
            },
            r"models\.vae: a posterior that is a point has no bound",
        ),
        ({"warm_starts": True}, "warm_starts goes on from models of one setting"),
        ({"ensembles": {"all": ["vae", "lds"]}}, "ensembles goes on from models of one setting"),
        ({"scheme": "gabriel", "models": {"pca": PCA}}, "scheme 'gabriel' factorises a matrix"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_fit(changes, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        grid(tmp_path / "cv", **changes)
    assert not (tmp_path / "cv").exists()
