from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import r2_score
from torch import Tensor, nn

from seqvae.scores.metrics import (
    R2,
    AggregatePosterior,
    BitsPerSpike,
    LogLikelihood,
    MeanPerTrial,
    SumMetric,
)

NUM_TRIALS, NUM_BINS, NUM_NEURONS = 23, 7, 4


def data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_TRIALS, NUM_BINS, NUM_NEURONS)
    rates = torch.rand(shape, generator=generator) + 0.1
    weight = torch.rand(shape, generator=generator)
    return {
        "mean": rates,
        "target": torch.poisson(rates, generator=generator),
        "weight": torch.where(weight < 0.3, 0.0, 2 * weight),
        "mask": torch.rand(shape[:2], generator=generator) > 0.2,
        "log_prob": torch.randn(shape, generator=generator),
        "null": rates.mean((0, 1)),
    }


def update(metric: SumMetric, trials: slice) -> None:
    values = {name: value[trials] for name, value in data().items() if name != "null"}
    if isinstance(metric, BitsPerSpike):
        metric.update(values["mean"], values["target"], values["weight"])
    elif isinstance(metric, LogLikelihood):
        metric.update(values["log_prob"], values["weight"])
    elif isinstance(metric, R2):
        metric.update(values["mean"], values["target"], values["mask"])
    elif isinstance(metric, MeanPerTrial):
        metric.update(values["log_prob"].sum((1, 2)))


def members() -> list[SumMetric]:
    return [BitsPerSpike(data()["null"]), LogLikelihood(), R2(NUM_NEURONS), MeanPerTrial()]


@given(cuts=st.lists(st.integers(0, NUM_TRIALS), max_size=6))
def test_scores_do_not_depend_on_how_the_set_is_cut_into_batches(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), NUM_TRIALS]
    for whole, cut in zip(members(), members(), strict=True):
        update(whole, slice(None))
        for start, stop in pairwise(edges):
            update(cut, slice(start, stop))
        torch.testing.assert_close(cut.compute(), whole.compute(), rtol=1e-12, atol=1e-12)
        assert cut.compute().dtype == torch.float64


def test_bits_per_spike_is_the_poisson_gain_over_the_null_per_spike() -> None:
    values = [data()[name].double() for name in ("mean", "target", "weight", "null")]
    mean, target, weight, null = (value.numpy() for value in values)
    gain = stats.poisson.logpmf(target, mean) - stats.poisson.logpmf(target, null)
    expected = (weight * gain).sum() / (math.log(2) * (weight * target).sum())
    double, single = BitsPerSpike(data()["null"]), BitsPerSpike(data()["null"])
    double.update(*values[:3])
    update(single, slice(None))
    assert double.compute().item() == pytest.approx(expected, rel=1e-10)
    assert single.compute().item() == pytest.approx(expected, rel=1e-6)


def test_a_scored_entry_that_is_not_a_number_is_not_passed_over() -> None:
    values = data()
    entry = tuple(values["weight"].nonzero()[0])
    for metric in members()[:2]:
        values["mean"][entry] = values["log_prob"][entry] = torch.nan
        if isinstance(metric, BitsPerSpike):
            metric.update(values["mean"], values["target"], values["weight"])
        else:
            metric.update(values["log_prob"], values["weight"])
        assert metric.compute().isnan()


def test_half_precision_is_summed_in_a_better_one() -> None:
    for metric in members()[:2]:
        weight = torch.ones(3, 4000, 1, dtype=torch.float16)
        if isinstance(metric, BitsPerSpike):
            metric = BitsPerSpike(torch.ones(1))
            metric.update(2 * weight, weight, weight)
            assert metric.compute().item() == pytest.approx(1 - 1 / math.log(2), rel=1e-6)
        else:
            metric.update(-100 * weight, weight)
            assert metric.compute().item() == -100.0


def test_the_null_model_scores_zero_bits() -> None:
    null = data()["null"]
    metric = BitsPerSpike(null)
    metric.update(null.expand_as(data()["target"]).clone(), data()["target"], data()["weight"])
    assert metric.compute().item() == pytest.approx(0.0, abs=1e-12)


def test_a_spike_of_a_neuron_silent_in_training_scores_finite() -> None:
    metric = BitsPerSpike(torch.zeros(1))
    metric.update(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    assert metric.compute().item() == 0.0


def test_entries_of_weight_zero_may_hold_anything() -> None:
    whole, partial = members()[:2], members()[:2]
    for metric, poisoned in zip(whole, partial, strict=True):
        update(metric, slice(None))
        values = data()
        for name in ("mean", "log_prob"):
            values[name] = torch.where(values["weight"] == 0, torch.nan, values[name])
        if isinstance(poisoned, BitsPerSpike):
            poisoned.update(values["mean"], values["target"], values["weight"])
        else:
            poisoned.update(values["log_prob"], values["weight"])
        assert poisoned.compute() == metric.compute()


def test_log_likelihood_is_nats_per_scored_entry() -> None:
    metric = LogLikelihood()
    update(metric, slice(None))
    log_prob, weight = data()["log_prob"].double(), data()["weight"].double()
    torch.testing.assert_close(metric.compute(), (log_prob * weight).sum() / weight.sum())


def test_r2_is_scikit_learns_over_the_unmasked_bins() -> None:
    metric = R2(NUM_NEURONS)
    update(metric, slice(None))
    mask = data()["mask"]
    expected = r2_score(data()["target"][mask].numpy(), data()["mean"][mask].numpy())
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_r2_masks_single_entries_and_ignores_what_they_hold() -> None:
    truth = torch.randn(5, 6, 2)
    mask = torch.rand(5, 6, 2) > 0.3
    prediction = torch.where(mask, truth, torch.nan)
    metric = R2(2)
    metric.update(prediction, torch.where(mask, truth, torch.nan), mask)
    assert metric.compute().item() == 1.0


def test_r2_leaves_constant_truth_out() -> None:
    truth = torch.randn(5, 6, 3)
    truth[..., 1] = 0.1
    truth[..., 2] = 0.0
    metric = R2(3)
    metric.update(truth + 1.0, truth, torch.ones(5, 6, dtype=torch.bool))
    expected = r2_score(truth[..., 0].flatten().numpy(), truth[..., 0].flatten().numpy() + 1)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_a_set_with_nothing_to_score_answers_nan_without_a_warning() -> None:
    for metric in members():
        assert metric.compute().isnan()
        update(metric, slice(0, 0))
        assert metric.compute().isnan()
    silent = BitsPerSpike(data()["null"])
    silent.update(data()["mean"], torch.zeros_like(data()["mean"]), data()["weight"])
    assert silent.compute().isnan()


def test_asking_early_does_not_freeze_the_answer() -> None:
    for metric, late in zip(members(), members(), strict=True):
        assert metric.compute().isnan()
        update(metric, slice(None))
        update(late, slice(None))
        assert metric.compute() == late.compute()
        metric.reset()
        assert metric.compute().isnan()


def test_sums_stay_in_double_precision_inside_a_module_of_another_precision() -> None:
    for metric in members():
        update(metric, slice(None))
        before = metric.compute().item()
        module = nn.ModuleList([copy.deepcopy(metric)])
        for change in (
            module.half,
            module.bfloat16,
            lambda module=module: module.to(torch.float16),
            lambda module=module: module.to("cpu"),
        ):
            change()
            inner = module[0]
            assert isinstance(inner, SumMetric)
            update(inner, slice(0, 0))
            assert inner.compute().dtype == torch.float64
            assert inner.compute().item() == before


def test_only_scores_that_grow_with_quality_say_so() -> None:
    assert [metric.higher_is_better for metric in members()] == [True, True, True, None]


def test_states_are_not_part_of_a_models_weights() -> None:
    assert all(not metric.state_dict() for metric in members())


def used(mean: Tensor, std: Tensor, prior_std: float = 1.0) -> AggregatePosterior:
    """Some points, a trial each, in two unequal batches."""
    metric = AggregatePosterior(mean.shape[1], mean.shape[1])
    own = torch.stack([mean, std.square()])
    prior = torch.stack([torch.zeros_like(mean), torch.full_like(mean, prior_std**2)])
    for part in (slice(0, 10), slice(10, None)):
        metric.update(own[:, part], prior[:, part], mean[part].abs())
    return metric


def test_units_are_active_where_the_posterior_mean_varies():
    torch.manual_seed(0)
    mean = torch.randn(500, 4) * torch.tensor([1.0, 0.3, 0.09, 0.0]) + 2.0
    found = used(mean, torch.ones(500, 4)).compute()
    assert found.active_units == 2
    expected = mean.double().var(0, correction=0)
    torch.testing.assert_close(torch.tensor(found.variance_of_mean).double(), expected)
    torch.testing.assert_close(torch.tensor(found.kl).double(), mean.double().abs().mean(0))


def test_aggregate_posterior_is_that_of_all_points():
    torch.manual_seed(0)
    mean, std = torch.randn(40, 2) + 0.5, torch.rand(40, 2) + 0.1
    found = used(mean, std, prior_std=2.0).compute()
    draws = (mean + std * torch.randn(20_000, 40, 2)).flatten(0, 1)
    assert found.aggregate_mean == pytest.approx(draws.mean(0).tolist(), abs=0.01)
    assert found.aggregate_std == pytest.approx(draws.std(0).tolist(), abs=0.01)
    own = torch.distributions.Normal(
        torch.tensor(found.aggregate_mean), torch.tensor(found.aggregate_std)
    )
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 2.0)).sum()
    assert found.aggregate_kl == pytest.approx(float(expected), rel=1e-5)


def test_a_posterior_that_is_the_prior_uses_nothing():
    found = used(torch.zeros(50, 3), torch.ones(50, 3)).compute()
    assert found.active_units == 0
    assert found.aggregate_kl == pytest.approx(0.0, abs=1e-12)
