"""How score and dimension grow with trials, measured on subsamples and extrapolated."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from seqvae import InputError, crossvalidate, report
from seqvae.console import main as cli
from seqvae.crossvalidation.choice import RULES
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.growth import Curve, growth, growth_words, outlook
from seqvae.crossvalidation.table import scores_table, summarize
from seqvae.data import Recording
from seqvae.data.folds import subsample
from seqvae.models import PCA
from seqvae.plotting import growth_curve
from seqvae.verbs.crossvalidate import shown
from tiny import LORENZ, tiny_data

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")

FRACTIONS = [0.25, 0.5, 1.0]
MODELS = {"pca": PCA}
SOURCE = replace(LORENZ, num_trials=40, num_val=0, num_time_bins=6, num_heldout=0)
GRID = {
    "scheme": "gabriel",
    "trial_folds": 2,
    "neuron_folds": 2,
    "num_samples": 2,
    "progress": False,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A cross-validation of subsamples."""
    return crossvalidate(
        tiny_data(SOURCE), MODELS, dims=[1, 2], subsample=FRACTIONS, **GRID,
        out_dir=str(tmp_path_factory.mktemp("cv") / "cv"),
    )  # fmt: skip


# --- subsamples ----------------------------------------------------------------------------------


def divided(**settings) -> Division:
    recording = Recording(np.random.default_rng(0).poisson(1.0, (40, 3, 6)).astype(np.float32), 0.1)
    recording = replace(recording, condition=np.repeat(["a", "b", "c", "d"], 10))
    given = {"scheme": "fold_in", "rows": "auto", "trial_folds": 5, "neuron_folds": 2, "gap": None}
    return Division.of(recording, seed=3, **{**given, **settings})


def test_subsamples_are_nested_and_what_is_held_out_stays():
    whole = divided()
    for fold in range(5):
        former: set[bytes] = set()
        for fraction, number in ((0.25, 8), (0.5, 16), (1.0, 32)):
            part = whole.with_fraction(fraction)
            rows = {trial.tobytes() for trial in part.train(fold).read()}
            assert former <= rows
            assert len(part.train(fold).read()) == number
            former = rows
            for neuron_fold in range(2):
                truth = whole.part(fold, neuron_fold).truth
                np.testing.assert_array_equal(part.part(fold, neuron_fold).truth, truth)
        np.testing.assert_array_equal(part.train(fold).read(), whole.train(fold).read())


def test_subsamples_hold_every_condition_by_its_share():
    condition = np.array(["a"] * 20 + ["b"] * 10 + ["c"] * 10)
    for fraction in (0.1, 0.3, 0.5, 0.8):
        chosen = subsample(fraction, condition=condition, seed=[0])
        assert len(chosen) == round(40 * fraction)
        assert (np.diff(chosen) > 0).all()
        for value, share in (("a", 0.5), ("b", 0.25), ("c", 0.25)):
            assert abs((condition[chosen] == value).sum() - share * len(chosen)) <= 1


# --- the law -------------------------------------------------------------------------------------


def curve(deficit: dict[int, float], limit: dict[int, float], *, noise: float = 0.0) -> Curve:
    """Scores that follow the law, in five trial folds that differ in difficulty."""
    generator = np.random.default_rng(0)
    trials, dims = np.array([12.0, 25.0, 50.0]), [0, *deficit]
    level = generator.normal(0, 0.01, 5)
    scores = np.zeros((3, 5, len(dims)))
    for place, dim in enumerate(dims):
        ends = limit.get(dim, 0.0) - deficit.get(dim, 0.0) / trials
        scores[..., place] = (ends[:, None] + (dim > 0) * level) / 5
    scores[..., 1:] += noise * generator.standard_normal(scores[..., 1:].shape)
    return Curve(trials, scores, scores, dims, np.arange(5))


def test_what_follows_the_law_is_extrapolated_exactly():
    own = curve({1: 2.0, 2: 5.0}, {1: 0.3, 2: 0.4})
    for trials in (25.0, 50.0, 200.0):
        ahead = own.ahead(own.scores, trials).sum(axis=0)
        level = own.scores[-1].sum(axis=0)[1] - (0.3 - 2.0 / 50)
        assert ahead == pytest.approx([0.0, 0.3 - 2.0 / trials + level, 0.4 - 5 / trials + level])


def test_larger_dimensions_that_gain_by_trials_are_chosen_ahead():
    own = curve({1: 1.0, 2: 8.0}, {1: 0.3, 2: 0.4}, noise=1e-4)
    now = own.scores[-1].sum(axis=0)
    assert now[1] > now[2]
    drawn = outlook(own, 200.0, rule="paired_1se", chosen=1)
    assert np.mean(drawn.dim == 2) > 0.95
    same = outlook(own, 50.0, rule="paired_1se", chosen=1)
    assert np.mean(same.dim == 1) > 0.95
    assert np.median(drawn.gain) == pytest.approx(0.4 - 8 / 200 - 0.3 + 1 / 50, abs=0.003)


@pytest.mark.parametrize("rule", RULES)
def test_bands_narrow_with_noise_and_are_the_same_each_time(rule):
    wide, narrow = (
        outlook(curve({1: 1.0, 2: 1.5}, {1: 0.3, 2: 0.5}, noise=noise), 200.0, rule=rule, chosen=2)
        for noise in (1e-2, 1e-4)
    )
    assert np.ptp(np.quantile(wide.gain, [0.05, 0.95])) > 5 * np.ptp(
        np.quantile(narrow.gain, [0.05, 0.95])
    )
    again = outlook(curve({1: 1.0, 2: 1.5}, {1: 0.3, 2: 0.5}, noise=1e-4), 200.0, rule=rule,
                    chosen=2)  # fmt: skip
    np.testing.assert_array_equal(again.score, narrow.score)


def simulated(seed: int, trials: np.ndarray) -> np.ndarray:
    """Scores (size, fold, dim) of linear regressions on 0 to 3 inputs, in nats per entry."""
    generator = np.random.default_rng(seed)
    weights = np.array([0.6, 0.3, 0.15])
    inputs = generator.standard_normal((trials[-1], 3))
    target = inputs @ weights + generator.standard_normal(trials[-1])
    fold = generator.permutation(trials[-1]) % 5
    scores = np.zeros((len(trials), 5, 4))
    for row in range(5):
        learned = generator.permutation(np.flatnonzero(fold != row))
        for place, number in enumerate(trials):
            some = learned[: number * 4 // 5]
            for dim in range(4):
                fit, *_ = np.linalg.lstsq(inputs[some, :dim], target[some], rcond=None)
                error = target[fold == row] - inputs[fold == row, :dim] @ fit
                scores[place, row, dim] = -0.5 * (error**2).sum() / trials[-1]
    return scores


def test_bands_of_a_pilot_hold_what_four_times_the_trials_give():
    held = []
    for seed in range(60):
        pilot = simulated(seed, np.array([12, 25, 50]))
        whole = simulated(1000 + seed, np.array([200]))[0]
        own = Curve(np.array([12.5, 25.0, 50.0]), pilot, pilot, [0, 1, 2, 3], np.arange(5))
        drawn = outlook(own, 200.0, rule="min", chosen=1)
        chosen = int(whole.sum(axis=0).argmax())
        low, high = np.quantile(drawn.score, [0.05, 0.95])
        few, many = np.quantile(drawn.dim, [0.05, 0.95], method="inverted_cdf")
        held.append((low <= whole.sum(axis=0)[chosen] <= high, few <= chosen <= many))
    score, dim = np.mean(held, axis=0)
    assert score >= 0.85
    assert dim >= 0.85


# --- the verb ------------------------------------------------------------------------------------


def test_the_whole_is_as_without_subsamples(done, tmp_path):
    plain = crossvalidate(
        tiny_data(SOURCE), MODELS, dims=[1, 2], out_dir=str(tmp_path / "cv"), **GRID
    )
    names = {path.name for path in (plain.folder / "cells").iterdir()}
    assert names < {path.name for path in (done.folder / "cells").iterdir()}
    pd.testing.assert_frame_equal(
        plain.scores.drop(columns="seconds"), done.scores.drop(columns="seconds")
    )
    assert {**done.summary, "growth": None} == {**plain.summary, "growth": None}


def test_summary_table_figure_and_page_tell_of_more_trials(done, tmp_path):
    told = json.loads((done.folder / "summary.json").read_text())["growth"]
    assert told["trials"] == [10, 20, 40]
    (entry,) = told["models"].values()
    assert len(entry["chosen_dim"]) == len(entry["score"]) == 3
    assert [ahead["trials"] for ahead in entry["ahead"]] == [80, 160]
    assert all(one["score"]["low"] < one["score"]["high"] for one in entry["ahead"])
    table = pd.read_csv(done.folder / "subsamples.csv")
    assert table.groupby("fraction").size().tolist() == [12, 12, 12]
    text = shown(done, {})
    assert "pca: with 2 times the trials (80) " in text
    assert "pca: with 4 times the trials (160) " in text
    assert (done.folder / "growth.png").stat().st_size > 5000
    scores, sizes = growth_curve(done.summary).axes
    assert scores.get_xlabel() == sizes.get_xlabel() == "trials"
    np.testing.assert_array_equal(sizes.lines[0].get_ydata(), entry["chosen_dim"])
    out = report(crossvalidation=str(done.folder), out=str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert str(out).endswith("page.html")
    assert "How many more trials?" in page
    assert "with 4 times the trials (160)" in page
    broken = json.loads((done.folder / "summary.json").read_text())
    broken["growth"]["models"]["pca"]["score"] = "none"
    (tmp_path / "summary.json").write_text(json.dumps(broken))
    with pytest.raises(InputError, match="is no summary of a cross-validation"):
        report(crossvalidation=str(tmp_path), out=str(tmp_path / "other.html"))


def test_second_call_does_no_subsample_again(done, monkeypatch):
    monkeypatch.setattr(
        "seqvae.crossvalidation.cell._scored", lambda job: pytest.fail("was done again")
    )
    again = crossvalidate(
        tiny_data(SOURCE),
        MODELS,
        dims=[1, 2],
        subsample=FRACTIONS,
        out_dir=str(done.folder),
        **GRID,
    )
    assert again.summary == done.summary


def test_a_model_without_all_scores_has_no_curve_and_is_named():
    def table(failed: bool) -> pd.DataFrame:
        rows = [
            {"cell": {"model": "mean_rate" if dim == 0 else "lds", "dim": dim, "trial_fold": fold,
                      "neuron_fold": None, "seed": 0},
             "seconds": 1.0, "status": "failed" if failed and dim else "done",
             "rows": [{"neuron_fold": 0, "log_likelihood": 0.0, "spikes": 100.0, "entries": 100,
                       "left_out": 0, "gain": 50.0 * dim + fold * dim}]}
            for dim in (0, 1) for fold in range(3)
        ]  # fmt: skip
        return scores_table(rows, unit="bits_per_spike", k_shot=False)

    tables = [table(True), table(False), table(False)]
    summary = summarize(tables[-1], ["lds"], rule="min", unit="bits_per_spike", k_shot=False,
                        swept={"lds": "dimension"})  # fmt: skip
    told = growth(tables, summary, fractions=FRACTIONS, num_trials=30)
    assert told["failed_models"] == ["lds"]
    (sentence,) = growth_words(told, "bits_per_spike")
    assert sentence == "lds: no size has all scores at every fraction, so there is no curve"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"subsample": []}, "subsample must end with 1, all trials"),
        ({"subsample": [1.0]}, "a curve needs at least three fractions"),
        ({"subsample": [0.5, 1.0]}, "a curve needs at least three fractions"),
        ({"subsample": [0.25, 0.5]}, "subsample must end with 1, all trials"),
        ({"subsample": [0.0, 0.5, 1.0]}, "fractions above 0 up to 1, got 0"),
        ({"subsample": [0.5, 1.0, 1.5]}, "fractions above 0 up to 1, got 1.5"),
        ({"subsample": [0.5, float("nan"), 1.0]}, "fractions above 0 up to 1, got nan"),
        ({"subsample": [0.5, 0.25, 1.0]}, "subsample must ascend, but 0.25 follows 0.5"),
        ({"subsample": [0.5, 0.5, 1.0]}, "subsample holds 0.5 twice"),
        ({"subsample": [0.1, 0.5, 1.0]}, "0.1 of the 20 trials that a fold is learned from is 2"),
        ({"subsample": [0.49, 0.5, 1.0]}, "0.49 and 0.5 of 20 trials are both 10"),
        ({"subsample": FRACTIONS, "scheme": "speckled"}, "takes whole trials, not speckled"),
    ],
)
def test_what_is_no_subsample_is_refused_and_nothing_written(settings, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        crossvalidate(
            tiny_data(SOURCE),
            MODELS,
            dims=[1],
            out_dir=str(tmp_path / "cv"),
            **{**GRID, **settings},
        )
    assert not (tmp_path / "cv").exists()


def test_one_long_recording_has_no_trials_to_subsample():
    noise = np.random.default_rng(0).poisson(1.0, (1, 400, 6)).astype(np.float32)
    with pytest.raises(InputError, match="takes whole trials, not rows 'blocks'"):
        crossvalidate(noise, bin_width=0.02, models=MODELS, dims=[1], subsample=FRACTIONS, **GRID)


def test_command_line_refuses_what_is_no_list(capsys):
    words = ["crossvalidate", "--data.source.class_path", "Lorenz", "--dims", "[1]"]
    assert cli.main([*words, "--subsample", "half"]) == 2
    assert "subsample must be" in capsys.readouterr().err
