"""A fit by several seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from seqvae import EM, VAE, InputError, LinearDynamics, Run, evaluate, fit, infer
from seqvae.analysis.seeds import compared
from seqvae.console.main import main
from seqvae.errors import Terminated
from tiny import LORENZ, first_inequality, tiny_data, tiny_learner, weights

LORENZ_TRAIN = replace(LORENZ, num_val=0)
SMALL = partial(VAE, latent_dim=2, factor_dim=4, validation_samples=2)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    monkeypatch.chdir(tmp_path)


def seeds_of(folder: str) -> dict[int, dict[str, object]]:
    rows = json.loads(Path(folder, "seeds.json").read_text())["seeds"]
    return {row["seed"]: row for row in rows}


def assert_same_weights(one: str, other: str) -> None:
    states = [weights(Path(folder) / "weights.pt")["state_dict"] for folder in (one, other)]
    assert first_inequality(*states) is None


def test_several_seeds_are_the_fits_of_each_and_their_ensemble(capsys):
    data, learner = tiny_data(), tiny_learner(2)
    run = fit(data, SMALL, learner, seed=3, seeds=3, run_dir="all")
    assert data.seed == 0
    assert isinstance(run, Run)
    for seed in (3, 4, 5):
        fit(tiny_data(), SMALL, learner, seed=seed, run_dir=f"alone_{seed}")
        assert_same_weights(f"all/seed_{seed}", f"alone_{seed}")
        assert Run(f"all/seed_{seed}").hash == Run(f"alone_{seed}").hash
    rows = seeds_of("all")
    assert list(rows) == [3, 4, 5]
    scores = {seed: row["score"] for seed, row in rows.items()}
    assert [seed for seed in rows if rows[seed]["status"] == "best"] == [
        max(scores, key=scores.__getitem__)
    ]
    whole = infer(Run("all"), num_samples=3)
    assert set(whole.member.values) == {"seed_3", "seed_4", "seed_5"}
    members = [infer(f"alone_{seed}", num_samples=3)["rates"].values for seed in (3, 4, 5)]
    assert whole["rates"].values == pytest.approx(np.mean(members, axis=0), rel=1e-5)
    assert infer(run, num_samples=3).equals(whole)


def test_parallel_seeds_equal_those_of_one_process_and_the_command_tells_them(capsys):
    fit(tiny_data(), SMALL, tiny_learner(1), seeds=2, run_dir="here")
    argv = ["fit", "--config", "here/seed_0/config.yaml", "--seeds", "2", "--jobs", "2"]
    assert main([*argv, "--run_dir", "there"]) == 0
    text = capsys.readouterr().out
    assert "seeds, by heldin_elbo on the validation trials" in text
    assert "best" in text
    assert "median" in text
    for seed in (0, 1):
        assert_same_weights(f"here/seed_{seed}", f"there/seed_{seed}")
    assert infer("here", num_samples=2)["rates"].equals(infer("there", num_samples=2)["rates"])


def test_terminated_seeds_go_on_and_whole_ones_are_kept(monkeypatch):
    learner = tiny_learner(2)
    fit(tiny_data(), SMALL, learner, seeds=3, run_dir="whole")

    def interrupted(*arguments, seed, **settings):
        if seed == 1:
            raise Terminated
        return fit(*arguments, seed=seed, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("seqvae.verbs.fit.fit", interrupted)
        with pytest.raises(Terminated, match="seeds that are whole are kept"):
            fit(tiny_data(), SMALL, learner, seeds=3, run_dir="all")
    assert list(seeds_of("all")) == [0]
    with pytest.raises(InputError, match="is not a run: it has no config"):
        Run("all")
    with pytest.raises(InputError, match="already holds seeds; give a new folder, or --resume"):
        fit(tiny_data(), SMALL, learner, seeds=3, run_dir="all")
    before = Path("all/seed_0/weights.pt").stat().st_mtime_ns
    fit(tiny_data(), SMALL, learner, seeds=3, run_dir="all", resume=True)
    assert Path("all/seed_0/weights.pt").stat().st_mtime_ns == before
    assert_same_weights("all", "whole")
    with pytest.raises(InputError, match="latent_dim was 2 and is now 3; cannot resume"):
        fit(tiny_data(), partial(SMALL, latent_dim=3), learner, seeds=4, run_dir="all", resume=True)
    fit(tiny_data(), SMALL, learner, seeds=4, run_dir="all", resume=True)
    assert len(Run("all").members) == 4


def test_a_seed_that_cannot_be_fitted_is_told_and_left_out(monkeypatch):
    def sometimes(*arguments, seed, **settings):
        if seed == 1:
            raise InputError("learning diverged")
        return fit(*arguments, seed=seed, **settings)

    monkeypatch.setattr("seqvae.verbs.fit.fit", sometimes)
    with pytest.warns(UserWarning, match="seed 1 failed: learning diverged; it is left out"):
        run = fit(tiny_data(), SMALL, tiny_learner(1), seeds=3, run_dir="all")
    assert list(run.members) == ["seed_0", "seed_2"]
    assert seeds_of("all")[1]["status"] == "failed: learning diverged"


def test_an_outlier_is_told_and_left_out_of_the_ensemble(monkeypatch):
    scores = iter([-100.0, -101.0, -150.0, -100.5])
    monkeypatch.setattr(
        "seqvae.verbs.seeds.validation_scores", lambda *_: {"val/heldin_elbo": next(scores)}
    )
    with pytest.warns(UserWarning, match=r"seed 2 is an outlier: heldin_elbo -150\.0000"):
        run = fit(tiny_data(), SMALL, tiny_learner(1), seeds=4, run_dir="all")
    assert list(run.members) == ["seed_0", "seed_1", "seed_3"]
    assert evaluate("all/seed_2", num_samples=2)["num_trials"] == 8


def test_seeds_without_a_difference_are_told():
    model, learner = partial(LinearDynamics, latent_dim=2), EM(max_iterations=2, progress=False)
    with pytest.warns(UserWarning, match="all seeds have led to the same weights"):
        fit(tiny_data(), model, learner, seeds=2, run_dir="all")


def test_without_validation_trials_seeds_cannot_be_compared():
    data = tiny_data(LORENZ_TRAIN, val_fraction=0.0)
    with pytest.warns(UserWarning, match="without validation trials the seeds cannot be compared"):
        fit(data, SMALL, tiny_learner(1), seeds=2, run_dir="all")
    assert {row["status"] for row in seeds_of("all").values()} == {"whole"}


def test_refitted_seeds_are_compared_by_what_was_learned_before():
    """Of the validation trials, from which each has learned since."""
    fit(tiny_data(), SMALL, tiny_learner(1, refit=True), seeds=2, run_dir="all")
    for seed, row in seeds_of("all").items():
        (first,) = (one for one in Run(f"all/seed_{seed}").history if not one.get("refit"))
        assert row["score"] == first["val/heldin_elbo"]


def statuses(*scores: float, least: float = 1.0) -> list[str]:
    return [row.status for row in compared(dict(enumerate(scores)), least=least)]


def test_outliers_lie_far_below_the_median():
    assert statuses(-10.0, -11.0, -10.5, -40.0) == ["best", "whole", "whole", "outlier"]
    assert statuses(-10.0, -10.01, -10.0, -10.5) == ["best", "whole", "whole", "whole"]
    assert statuses(-10.0, -10.01, -10.0, -10.5, least=0.1)[-1] == "outlier"
    assert statuses(-10.0, 40.0, -10.5, -11.0) == ["whole", "best", "whole", "whole"]
    assert statuses(-1000.0, 0.0) == ["whole", "best"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seeds": 2, "jobs": 0}, "jobs must be at least 1"),
        ({"jobs": 2}, "jobs are for several seeds"),
        ({"seeds": 2, "in_memory": True}, "in_memory is for one fit"),
        ({"seeds": 2, "overwrite": True}, "overwrite is for one fit"),
        ({"seeds": 2, "resume": True}, "holds no seeds to resume"),
        ({"seeds": 2, "model": partial(VAE, latent_dim=0)}, "latent_dim"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_nothing_written(settings, sentence):
    settings = {"model": SMALL, "run_dir": "all", **settings}
    with pytest.raises(InputError, match=sentence):
        fit(tiny_data(), settings.pop("model"), tiny_learner(1), **settings)
    assert not Path("all").exists()
