"""Scores of the Neural Latents Benchmark, against its definitions written out [Pei et al. 2021]."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV

from seqvae import LinearDynamics
from seqvae.analysis.baseline_rows import share_conditions
from seqvae.analysis.evaluation import evaluate_model
from seqvae.analysis.posterior import posterior_dataset
from seqvae.baselines.condition_mean import ByCondition, ConditionMean
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import Counts
from seqvae.scores.benchmark import (
    NULLS,
    BenchmarkBits,
    PSTHMatch,
    benchmark_behavior_r2,
    benchmark_kernel,
)
from seqvae.scores.metrics import BitsPerSpike
from seqvae.verbs.evaluate import score_table
from tiny import LORENZ, tiny_data


def written_out_bits(rates, spikes):
    """The Poisson log-likelihood gained over each neuron's mean in these spikes, per spike."""
    null = np.broadcast_to(np.nanmean(spikes, axis=(0, 1)), spikes.shape)
    gained = np.nansum(poisson.logpmf(spikes, rates)) - np.nansum(poisson.logpmf(spikes, null))
    return gained / np.nansum(spikes) / np.log(2)


def written_out_psth_r2(rates, spikes, condition, bin_width):
    """R2 of the smoothed mean of each condition by the mean of rates, by neuron, then averaged."""
    time = np.arange(spikes.shape[1]) * bin_width
    kernel = np.exp(-((time[:, None] - time) ** 2) / (2 * 0.07**2))
    kernel /= kernel.sum(1, keepdims=True)
    labels = np.unique(condition)
    psth = np.stack([kernel @ spikes[condition == label].mean(0) for label in labels])
    means = np.stack([rates[condition == label].mean(0) for label in labels])
    sizes = (-1, spikes.shape[2])
    scores = r2_score(psth.reshape(sizes), means.reshape(sizes), multioutput="raw_values")
    return np.mean(scores)


def written_out_behavior_r2(rates_train, behavior_train, rates, behavior):
    """Ridge regression with a penalty by cross-validation, scored by the mean R2."""
    flat = [
        np.reshape(a, (-1, a.shape[-1])) for a in (rates_train, behavior_train, rates, behavior)
    ]
    search = GridSearchCV(Ridge(), {"alpha": np.logspace(-4, 0, 9)}).fit(*flat[:2])
    return search.score(*flat[2:])


@pytest.fixture(scope="module")
def arrays():
    """Expected counts and counts: 12 trials, 9 bins, 5 neurons."""
    generator = np.random.default_rng(0)
    rates = generator.gamma(2.0, 0.2, (12, 9, 5))
    return rates, generator.poisson(generator.gamma(2.0, 0.2, (12, 9, 5))).astype(float)


def test_bits_per_spike_are_those_of_the_benchmark(arrays):
    rates, spikes = arrays
    missing = spikes.copy()
    missing[3, 5:] = missing[:, 2, 1] = np.nan
    for counts in (spikes, missing):
        weight = torch.from_numpy(np.isfinite(counts).astype(float))
        parts = torch.from_numpy(rates), torch.from_numpy(np.nan_to_num(counts)), weight
        bits = BenchmarkBits(5)
        for trials in (slice(5), slice(5, 12)):
            bits.update(*(part[trials] for part in parts))
        assert float(bits.compute()) == pytest.approx(written_out_bits(rates, counts), abs=1e-9)


def test_the_null_that_knows_the_spikes_is_never_beaten_by_a_constant(arrays):
    rates, spikes = (torch.from_numpy(part) for part in arrays)
    ours, theirs = BitsPerSpike(torch.full((5,), 0.3)), BenchmarkBits(5)
    for score in (ours, theirs):
        score.update(rates, spikes, torch.ones_like(spikes))
    assert theirs.compute() < ours.compute()
    constant = BenchmarkBits(5)
    constant.update(spikes.mean((0, 1)).expand_as(spikes), spikes, torch.ones_like(spikes))
    assert float(constant.compute()) == pytest.approx(0, abs=1e-12)
    silent = BenchmarkBits(5)
    silent.update(rates, torch.zeros_like(spikes), torch.ones_like(spikes))
    assert math.isnan(silent.compute())


def test_match_to_psth_is_that_of_the_benchmark(arrays):
    rates, spikes = arrays
    condition = np.arange(12) % 3
    match = PSTHMatch(benchmark_kernel(9, 0.02), num_conditions=3, num_neurons=5)
    parts = [torch.from_numpy(part) for part in (rates, spikes, np.ones_like(spikes))]
    for trials in (slice(4), slice(4, 12)):
        match.update(
            *(part[trials] for part in parts), condition=torch.from_numpy(condition[trials])
        )
    expected = written_out_psth_r2(rates, spikes, condition, 0.02)
    assert float(match.compute()) == pytest.approx(expected, abs=1e-9)


def test_behavior_is_read_from_rates_as_in_the_benchmark(arrays):
    rates, _ = arrays
    generator = np.random.default_rng(1)
    for noise in (0.01, 1.0, 30.0):  # so that small, middling and large penalties are chosen
        behavior = rates @ generator.normal(size=(5, 2)) + noise * generator.normal(size=(12, 9, 2))
        parts = rates[:8], behavior[:8], rates[8:], behavior[8:]
        read = benchmark_behavior_r2(*parts[:2], rates_test=parts[2], behavior_test=parts[3])
        assert read == pytest.approx(written_out_behavior_r2(*parts), abs=1e-9)
    holes = [part.copy() for part in parts]
    holes[0][2, 3:], holes[3][1, 4] = np.nan, np.nan
    read = benchmark_behavior_r2(*holes[:2], rates_test=holes[2], behavior_test=holes[3])
    flat = [np.concatenate(list(part)) for part in parts]
    keep = [np.isfinite(np.concatenate(list(part))).all(-1) for part in (holes[0], holes[3])]
    flat = [flat[0][keep[0]], flat[1][keep[0]], flat[2][keep[1]], flat[3][keep[1]]]
    assert read == pytest.approx(written_out_behavior_r2(*flat), abs=1e-9)


def test_too_little_or_constant_behavior_has_no_score(arrays):
    rates, behavior = arrays
    few = {"rates_test": rates[2:], "behavior_test": behavior[2:]}
    assert math.isnan(benchmark_behavior_r2(rates[:1], behavior[:1], **few))
    constant = {"rates_test": rates[6:], "behavior_test": np.ones((6, 9, 5))}
    assert math.isnan(benchmark_behavior_r2(rates[:6], behavior[:6], **constant))


def test_condition_mean_knows_the_condition_and_nothing_else():
    generator = np.random.default_rng(0)
    condition = np.arange(60) % 2
    level = np.where(condition == 0, 0.5, 2.0)[:, None, None]
    trials = ByCondition(generator.poisson(level, (60, 8, 3)).astype(np.float32), condition)
    train, val = (ByCondition(*(part[s] for part in trials)) for s in (slice(40), slice(40, 60)))
    learned = ConditionMean.fit(train, val, kind=Counts())
    predicted = learned.predict(np.array([0, 1, 7]), num_time_bins=9)
    np.testing.assert_allclose(predicted[0, :8], 0.5, atol=0.2)
    np.testing.assert_allclose(predicted[1, :8], 2.0, atol=0.4)
    np.testing.assert_allclose(predicted[2], np.tile(learned.mean, (9, 1)))
    np.testing.assert_allclose(predicted[:, 8], np.tile(learned.mean, (3, 1)))
    sums = train.values[train.condition == 1].sum(0)
    exact = ConditionMean.learn(train, kind=Counts(), width=1e-3, prior_bins=1.0)
    np.testing.assert_allclose(exact.means[1], (sums + exact.mean) / 21, rtol=1e-6)


@pytest.fixture(scope="module")
def evaluated():
    """Data with conditions, behaviour, held-out neurons and forecast bins; a model, its scores."""
    recording = replace(LORENZ.load(), condition=np.array(["a", "b", "c"])[np.arange(24) % 3])
    data = tiny_data(Arrays(recording.encode(8)))
    data.setup()
    torch.manual_seed(0)
    model = LinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    return data, model, evaluate_model(model, data, split="val", num_samples=5, seed=0)


def test_scores_of_a_model_are_those_of_its_submission(evaluated):
    data, model, scores = evaluated
    val, train = data.trials("val"), data.trials("train")
    width = data.spec.bin_width
    rates = {
        word: posterior_dataset(model, data, trials, num_samples=5).rates.values * width
        for word, trials in (("val", val), ("train", train))
    }
    recording, heldout = data.recording, list(data.spec.heldout)
    spikes = recording.activity[val].astype(float)
    near = partial(pytest.approx, abs=1e-6)
    assert scores["nlb_co_bps"] == near(
        written_out_bits(rates["val"][:, :8, heldout], spikes[:, :8, heldout])
    )
    assert scores["nlb_fp_bps"] == near(written_out_bits(rates["val"][:, 8:], spikes[:, 8:]))
    expected = written_out_psth_r2(
        rates["val"][:, :8], spikes[:, :8], recording.condition[val], width
    )
    assert scores["nlb_psth_r2"] == near(expected)
    parts = (part[:, :8] for part in (rates["train"], recording.behavior[train],
                                      rates["val"], recording.behavior[val]))  # fmt: skip
    assert scores["nlb_behavior_r2"] == near(written_out_behavior_r2(*parts))


def test_one_table_reads_behavior_from_the_same_kind_of_thing(evaluated):
    _, _, scores = evaluated
    rows = scores["baselines"]
    assert list(rows) == ["mean_rate", "smoothing_glm", "condition_mean", "true_rates"]
    assert not any("behavior_r2" in row for row in rows.values())
    assert all(math.isfinite(rows[name]["nlb_behavior_r2"]) for name in list(rows)[1:3])
    assert math.isfinite(rows["condition_mean"]["condition_behavior_r2"])
    assert "condition_mean" in scores["gain"]


def test_both_nulls_stand_in_the_printed_table(evaluated):
    _, _, scores = evaluated
    lines = score_table(scores).splitlines()
    for name in ("co_bps", "fp_bps", "nlb_co_bps", "nlb_fp_bps"):
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.split()[1] == f"{scores[name]:.4f}"
    assert NULLS in lines


@pytest.mark.parametrize(
    ("labels", "is_shared"), [([2, 9], True), ([8, 9], False), (["1", "2"], False), (None, False)]
)
def test_a_condition_mean_needs_a_label_that_was_learned_from(labels, is_shared):
    learned, asked = (
        tiny_data(Arrays(replace(LORENZ.load(), condition=label and np.repeat(label, 12))))
        for label in ([1, 2], labels)
    )
    assert share_conditions(asked, learned) == is_shared


def test_labels_that_hardly_come_again_are_no_conditions():
    recording = replace(LORENZ.load(), condition=np.linspace(0.2, 0.9, 24))
    data = tiny_data(Arrays(recording))
    data.setup()
    model = LinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    scores = evaluate_model(model, data, split="val", num_samples=2, seed=0)
    assert "condition_mean" not in scores["baselines"]
    assert "nlb_psth_r2" not in scores
