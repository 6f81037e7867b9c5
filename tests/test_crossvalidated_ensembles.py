"""Ensembles of cells: what a grid has learned, scored together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from seqvae import EM, VAE, InputError, LinearDynamics, crossvalidate
from seqvae.analysis.posterior import deterministic
from seqvae.crossvalidation import cell as cells
from seqvae.crossvalidation.ensembles import ensemble_jobs
from seqvae.crossvalidation.learned import _serving, learned_by
from seqvae.crossvalidation.scoring import mean_rate_of, seen_data, sums
from seqvae.models.scores import predictive_mean
from seqvae.verbs import crossvalidate as verb
from seqvae.verbs.crossvalidate import shown
from tiny import tiny_data, tiny_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")

MODELS = {"lds": LinearDynamics, "vae": partial(VAE, factor_dim=4)}
LEARNERS = {"lds": EM(max_iterations=2, progress=False), "vae": tiny_learner(1)}
BOTH = {"both": ["lds", "vae"], "mixed": {"lds": 2, "vae": 1}}


def grid(folder: Path, **settings):
    given = {"dims": [1, 2], "trial_folds": 2, "neuron_folds": 2, "num_samples": 3}
    given |= {"progress": False, "out_dir": str(folder), **settings}
    return crossvalidate(tiny_data(), MODELS, LEARNERS, **given)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A grid with ensembles, in a folder that held one without, and the jobs of the ensembles."""
    folder, jobs = tmp_path_factory.mktemp("cv") / "cv", []

    def noted(*arguments):
        jobs.extend(ensemble_jobs(*arguments))
        return jobs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verb, "ensemble_jobs", noted)
        before = grid(folder)
        jobs.clear()
        return before, grid(folder, ensembles=BOTH), list(jobs)


def of_models(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    rows = table[table["model"].isin(names)].drop(columns="seconds")
    return rows.reset_index(drop=True)


def test_ensembles_stand_in_table_and_summary_and_change_no_other_cell(done):
    before, after, _ = done
    names = ("lds", "vae", "mean_rate")
    pd.testing.assert_frame_equal(of_models(before.scores, *names), of_models(after.scores, *names))
    for name, dims in (("both", [1, 2]), ("mixed", [2])):
        rows = of_models(after.scores, name)
        assert len(rows) == 4 * len(dims)
        assert list(rows["dim"].unique()) == dims
        assert after.summary["models"][name]["dims"] == [0, *dims]
    assert "mixed" in json.loads((after.folder / "summary.json").read_text())["models"]
    assert "-" in shown(after, {})


def test_an_ensemble_is_scored_by_the_mean_of_its_members_rates(done):
    _, after, jobs = done
    job = next(job for job in jobs if job.cell.model == "mixed")
    assert [member.cell.dim for member in job.members] == [2, 1]
    part = job.division.part(job.cell.trial_fold, job.cell.neuron_fold)
    null = mean_rate_of(job.division.train(job.cell.trial_fold), job.kind)
    means = []
    for member in job.members:
        model = _serving(member, learned_by(member), part)
        with deterministic(model, model.seed):
            (batch,) = seen_data(part, dict(job.settings)).batches("all", 1000)
            output = model(batch, job.num_samples)
            means.append(predictive_mean(output, model.expectations(output, batch)))
    mean = torch.stack(means).double().mean(0)
    truth = torch.from_numpy(np.nan_to_num(part.truth))
    expected = sums(null, part.truth, null.around(mean).log_prob(truth))
    row = after.scores.query(
        "model == 'mixed' and trial_fold == @job.cell.trial_fold "
        "and neuron_fold == @job.cell.neuron_fold"
    ).iloc[0]
    assert row["gain_sum"] == pytest.approx(expected.gain, rel=1e-4, abs=1e-4)


def test_a_second_call_fits_and_scores_nothing_again(done, monkeypatch):
    _, after, _ = done
    monkeypatch.setattr(cells, "_scored", lambda job: pytest.fail("a finished cell was done again"))
    again = grid(after.folder, ensembles=BOTH)
    pd.testing.assert_frame_equal(again.scores, after.scores)


def test_an_ensemble_with_a_member_that_failed_fails(tmp_path, monkeypatch):
    learn = cells.learn

    def sometimes(job, heldin):
        if job.cell.model == "vae":
            raise InputError("learning diverged")
        return learn(job, heldin)

    monkeypatch.setattr(cells, "learn", sometimes)
    with pytest.warns(UserWarning, match="cells failed"):
        found = grid(tmp_path / "cv", ensembles={"both": ["lds", "vae"]}, dims=[1])
    assert found.summary["failed_models"] == ["vae", "both"]


@pytest.mark.parametrize(
    ("ensembles", "sentence"),
    [
        ({"both": ["lds", "vea"]}, "ensembles.both: 'vea' is no model; did you mean 'vae'"),
        ({"both": ["lds"]}, "ensembles.both must hold at least two models"),
        ({"both": ["lds", "lds"]}, "ensembles.both must hold at least two models, each once"),
        ({"lds": ["lds", "vae"]}, "ensembles.lds: 'lds' is a model"),
        ({"both": {"lds": 3, "vae": 1}}, r"ensembles.both.lds: 3 is not one of dims \[1, 2\]"),
    ],
)
def test_what_makes_no_ensemble_is_refused(ensembles, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        grid(tmp_path / "cv", ensembles=ensembles)
    assert not (tmp_path / "cv").exists()
