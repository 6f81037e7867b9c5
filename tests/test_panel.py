from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from seqvae import InputError, NeuralData, crossvalidate, report
from seqvae.crossvalidation.panel.estimates import estimates
from seqvae.crossvalidation.panel.hard_threshold import (
    hard_threshold,
    marchenko_pastur_median,
    omega,
    optimal_threshold,
)
from seqvae.crossvalidation.panel.matrix import standardized_rows, trials_of
from seqvae.crossvalidation.panel.participation import participation_ratio
from seqvae.crossvalidation.panel.relevance import (
    Factors,
    automatic_relevance,
    identified_factors,
    learn,
)
from seqvae.crossvalidation.panel.sign_flips import sign_flips, singular_values
from seqvae.crossvalidation.panel.summary import panel_lines
from seqvae.data.sources import Arrays
from seqvae.models import PCA
from seqvae.pages.dimensions import read_summary
from seqvae.plotting import dimension_panel
from seqvae.verbs.crossvalidate import shown

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")


def factor_rows(seed, *, rank=3, num_rows=600, num_columns=20, strength=0.6):
    """Rows of a factor model whose columns differ in noise, standardised."""
    generator = np.random.default_rng(seed)
    loadings = strength * generator.standard_normal((num_columns, rank))
    noise = generator.uniform(0.5, 1.5, num_columns) * generator.standard_normal(
        (num_rows, num_columns)
    )
    rows = generator.standard_normal((num_rows, rank)) @ loadings.T + noise
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def slow_trials(seed, *, loadings, num_trials=20, num_bins=12, noise=1.0):
    """Trials of latents that keep .8 of themselves for a bin, in white noise."""
    generator = np.random.default_rng(seed)
    latents = generator.standard_normal((num_trials, num_bins, loadings.shape[1]))
    for time in range(1, num_bins):
        latents[:, time] = 0.8 * latents[:, time - 1] + 0.6 * latents[:, time]
    white = generator.standard_normal((num_trials, num_bins, len(loadings)))
    return latents @ loadings.T + noise * white


# --- parallel analysis ---------------------------------------------------------------------------


def test_sign_flips_find_the_rank_of_a_signal_and_none_of_noise():
    for seed in range(3):
        assert sign_flips(factor_rows(seed), seed=seed)[:2] == (3, 3)
    noise = (factor_rows(seed, rank=0, num_rows=100, num_columns=8) for seed in range(40))
    empty = [sign_flips(rows, seed=seed).upper_edge for seed, rows in enumerate(noise)]
    assert sum(one > 0 for one in empty) <= 2  # 1 in 101 by definition


def test_sign_flips_are_those_of_their_definition():
    rows = factor_rows(0, num_rows=30)
    values = np.linalg.svd(rows, compute_uv=False)
    assert singular_values(rows) == pytest.approx(values)
    assert singular_values(rows.T) == pytest.approx(values)
    found = sign_flips(rows, flips=400, quantile=0.5)
    generator = np.random.default_rng(1)
    edges = [
        np.linalg.norm(rows * generator.choice([-1.0, 1.0], rows.shape), ord=2) for _ in range(400)
    ]
    spread = 1.25 * np.std(edges) / np.sqrt(400)
    assert found.threshold == pytest.approx(np.median(edges), abs=6 * spread)
    assert found.upper_edge == (values > found.threshold).sum()
    assert found.pairwise >= found.upper_edge


# --- the hard threshold --------------------------------------------------------------------------


def test_omega_is_that_of_the_published_table():
    table = {0.05: 1.5194, 0.1: 1.6089, 0.25: 1.8371, 0.5: 2.1711, 0.75: 2.5011, 1.0: 2.8582}
    for beta, published in table.items():
        assert omega(beta) == pytest.approx(published, abs=1.1e-3)
    assert omega(1.0) == pytest.approx(2.858, abs=5e-4)
    assert optimal_threshold(1.0) == pytest.approx(4 / np.sqrt(3))


def test_median_of_the_marchenko_pastur_law_is_that_of_noise():
    noise = np.random.default_rng(0).standard_normal((2000, 500))
    assert np.median(singular_values(noise) ** 2) / 2000 == pytest.approx(
        marchenko_pastur_median(0.25), rel=0.005
    )


def test_hard_threshold_finds_the_rank_in_white_noise_whatever_its_size():
    generator = np.random.default_rng(0)
    low_rank = 0.5 * generator.standard_normal((300, 3)) @ generator.standard_normal((3, 40))
    noise = generator.standard_normal((300, 40))
    for scale in (1.0, 30.0):
        assert hard_threshold(scale * (low_rank + noise)).dimension == 3
    assert hard_threshold(noise).dimension == 0


# --- the participation ratio ---------------------------------------------------------------------


def test_both_parts_of_the_participation_ratio_are_unbiased(monkeypatch):
    module = "seqvae.crossvalidation.panel.participation"
    monkeypatch.setattr(f"{module}.PAIRINGS", 4)
    monkeypatch.setattr(f"{module}.MOST_GROUPS", 15)  # of 20 trials
    loadings = np.random.default_rng(99).standard_normal((10, 3)) * [1.0, 0.7, 0.4]
    covariance = 0.8 * loadings @ loadings.T
    found = np.array([
        participation_ratio(slow_trials(seed, loadings=loadings), seed=seed) for seed in range(80)
    ])  # fmt: skip
    truth = np.trace(covariance) ** 2, (covariance**2).sum()
    for values, true in zip(found.T[1:3], truth, strict=True):
        assert abs(values.mean() - true) < 3.5 * stats.sem(values)
    assert np.median(found[:, 0]) == pytest.approx(truth[0] / truth[1], rel=0.1)
    assert (found[:, 3] <= 0.05).all()


def test_participation_ratio_does_not_depend_on_what_is_added_to_a_neuron():
    trials = slow_trials(0, loadings=np.ones((5, 1)))
    shifted = trials + 100 * np.arange(5)
    assert participation_ratio(shifted)[:3] == pytest.approx(participation_ratio(trials)[:3])


def test_participation_ratio_of_noise_is_0_and_of_too_few_trials_unknown():
    noise = np.random.default_rng(0).standard_normal((30, 12, 8))
    ratios = [participation_ratio(noise[:, :, :size]).dimension for size in range(2, 9)]
    assert sum(ratio > 0 for ratio in ratios) <= 1
    assert participation_ratio(noise, lag=0).dimension == pytest.approx(8, rel=0.1)
    assert np.isnan(participation_ratio(noise[:11]).dimension)


def test_missing_bins_leave_the_participation_ratio_unbiased():
    loadings = np.eye(6)[:, :2]
    trials = slow_trials(1, loadings=loadings, num_trials=400)
    trials[::2, 8:] = np.nan
    assert participation_ratio(trials).dimension == pytest.approx(2, rel=0.1)


# --- automatic relevance -------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_ard_prunes_to_the_true_rank(rank):
    rows = factor_rows(rank, rank=rank, num_rows=1000, num_columns=16)
    found = automatic_relevance(rows.T @ rows / len(rows), len(rows))
    assert found.dimension == rank
    assert not found.is_largest


def test_the_bound_of_ard_rises_and_stays_below_the_evidence_without_factors():
    rows = factor_rows(0)
    covariance = rows.T @ rows / len(rows)
    generator = np.random.default_rng(0)
    start = Factors(generator.standard_normal((20, 8)), np.ones(20), np.ones(8), [])
    learned = learn(covariance, len(rows), start, max_iterations=200, tolerance=0.0)
    steps = np.diff(learned.bounds)
    assert (steps > -1e-9 * abs(learned.bounds[-1])).all()
    assert learned.relevance.shape == (8,)
    # with no factor the bound is the likelihood itself
    none = learn(covariance, len(rows), Factors(np.ones((20, 0)), np.ones(20), np.ones(0), []))
    assert none.bounds[-1] == pytest.approx(stats.norm(0, rows.std(axis=0)).logpdf(rows).sum())
    # with any, it is below the likelihood at the best loadings
    from sklearn.decomposition import FactorAnalysis

    best = FactorAnalysis(8, svd_method="lapack").fit(rows).score(rows) * len(rows)
    assert none.bounds[-1] < learned.bounds[-1] < best


def test_ard_takes_neurons_that_are_copies():
    rows = factor_rows(0, num_rows=4000, num_columns=10)
    rows = np.concatenate([rows, rows[:, :4]], axis=1)
    found = automatic_relevance(rows.T @ rows / len(rows), len(rows))
    assert np.isfinite(found.bound)
    assert 3 < found.dimension <= 7  # a copy shares its noise with the original


def test_ard_takes_no_factor_of_one_neuron():
    for seed in (11, 14, 22):  # where the first learning ends with one
        rows = factor_rows(seed, rank=0, num_rows=500, num_columns=10)
        assert automatic_relevance(rows.T @ rows / len(rows), len(rows)).dimension == 0


def test_no_more_factors_are_offered_than_a_covariance_identifies():
    for size in (2, 3, 6, 10, 50):
        most = identified_factors(size)
        assert (size - most) ** 2 >= size + most
        assert (size - most - 1) ** 2 < size + most + 1
    rows = factor_rows(0, rank=3, num_rows=800, num_columns=6)
    found = automatic_relevance(rows.T @ rows / len(rows), len(rows), most=2)
    assert found.is_largest


# --- the panel -----------------------------------------------------------------------------------


def test_rows_are_whole_bins_standardised_and_what_cannot_be_asked_is_refused():
    counts = np.random.default_rng(0).poisson(1.0, (4, 10, 3)).astype(np.float32)
    counts[0, :2, 0] = np.nan
    counts[..., 2] = 5
    rows = standardized_rows(counts, counts=True)
    assert rows.shape == (38, 2)
    assert rows.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert rows.std(axis=0) == pytest.approx(1)
    expected = np.sqrt(counts[0, 2:, 1])
    assert np.corrcoef(rows[:8, 1], expected)[0, 1] == pytest.approx(1)
    for bad, sentence in ((counts[:1, :5], "in 3 bins only"), (counts[..., [1, 2]], "two neurons")):
        with pytest.raises(InputError, match=sentence):
            standardized_rows(bad, counts=True)
    long = np.arange(100.0, dtype=np.float32).reshape(1, 50, 2)
    assert trials_of(long, counts=True).shape == (20, 2, 2)


def test_duplicated_neurons_and_one_bin_trials_are_answered():
    counts = np.random.default_rng(0).poisson(1.0, (60, 1, 4)).astype(np.float32)
    panel = {one.estimator.split()[0]: one for one in estimates(counts, counts=True)}
    assert panel["participation"].details["lag"] == 0
    twice = np.concatenate([counts, counts], axis=2)
    assert all(one.dimension >= 1 for one in estimates(twice, counts=True))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The same folder without a panel and with one."""
    loadings = np.random.default_rng(5).standard_normal((6, 2))
    activity = slow_trials(0, loadings=0.6 * loadings, num_bins=6)
    counts = np.random.default_rng(1).poisson(np.exp(activity - 1.0)).astype(np.float32)
    folder = tmp_path_factory.mktemp("found") / "cv"
    cells = {"dims": [1, 2], "trial_folds": 2, "neuron_folds": 2, "num_samples": 2,
             "progress": False, "k_shot": 8, "out_dir": str(folder)}  # fmt: skip
    data, models = NeuralData(Arrays(counts)), {"pca": partial(PCA, smoothing=0.0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.crossvalidation.scoring.K_SHOT_REPEATS", 1)
        without = crossvalidate(data, models, **cells)
    before = json.loads((folder / "summary.json").read_text()), set(folder.rglob("*"))
    return without, before, crossvalidate(data, models, panel=True, **cells)


def test_a_panel_stands_beside_the_scores_and_changes_none(done):
    without, (before, files), found = done
    assert without.panel is None
    assert found.scores.equals(without.scores)  # seconds, too: no cell was done again
    assert set(found.folder.rglob("*")) - files == {found.folder / "panel.png"}
    summary = json.loads((found.folder / "summary.json").read_text())
    told = summary.pop("panel")
    assert summary == before
    assert (found.folder / "panel.png").stat().st_size > 10_000
    assert list(found.panel.index) == [one["estimator"] for one in told]
    assert found.panel.loc["few-shot co-smoothing (pca)", "dimension"] in (0, 1, 2)
    assert 1 <= found.panel.loc["parallel analysis (sign flips)", "dimension"] <= 3


def test_a_panel_is_printed_and_has_a_section_of_the_page(done, tmp_path):
    without, _, found = done
    text = shown(found, {})
    assert "cross-validation (pca)" in text
    assert "hard threshold (Gavish-Donoho)" in text
    assert "panel:" not in shown(without, {})
    of_states = json.loads(json.dumps(found.summary))
    of_states["models"]["pca"]["swept"] = "num_states"
    assert "cross-validation (pca)" not in "".join(panel_lines(of_states))  # no number of latents
    assert len(dimension_panel(of_states).axes[1].get_yticks()) == len(found.panel)
    page = Path(report(crossvalidation=str(found.folder), out=str(tmp_path / "page.html")))
    assert "What do other estimators say?" in page.read_text()


def test_a_panel_that_is_none_is_refused_by_the_report(done, tmp_path):
    summary = done[-1].summary
    for name, value in (
        ("dimension", "two"), ("dimension", -1), ("assumes", 3), ("details", "none"),
    ):  # fmt: skip
        bad = {**summary, "panel": [{**summary["panel"][0], name: value}]}
        (tmp_path / "summary.json").write_text(json.dumps(bad))
        with pytest.raises(InputError, match="is no summary of a cross-validation"):
            read_summary(str(tmp_path))
    bad = {**summary, "models": {"pca": {**summary["models"]["pca"], "confidence_set": "all"}}}
    (tmp_path / "summary.json").write_text(json.dumps(bad))
    with pytest.raises(InputError, match="is no summary of a cross-validation"):
        read_summary(str(tmp_path))


def test_a_panel_that_cannot_be_asked_is_refused_before_anything_is_learned(tmp_path):
    counts = np.random.default_rng(0).poisson(1.0, (12, 5, 4)).astype(np.float32)
    counts[np.arange(12), :, np.arange(12) % 4] = np.nan
    with pytest.raises(InputError, match="panel: all neurons are observed together in 0 bins"):
        crossvalidate(
            NeuralData(Arrays(counts)), {"pca": PCA}, dims=[1], trial_folds=2, neuron_folds=2,
            panel=True, progress=False, out_dir=str(tmp_path / "cv"),
        )  # fmt: skip
    assert not (tmp_path / "cv").exists()
