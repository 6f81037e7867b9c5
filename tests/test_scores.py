from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from seqvae.distributions import Delta, PoissonLogRate
from seqvae.models.scores import Scores
from seqvae.objectives import bound, importance_weighted_bound
from seqvae.types import Batch, Latent, Output
from toy import toy_batch, toy_spec

NUM_TRIALS, NUM_SAMPLES = 11, 4
SPEC = toy_spec(heldout=(1, 4), num_forecast_bins=3)
NULL = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5, 1.0])


@pytest.fixture
def batch() -> Batch:
    return toy_batch(SPEC, num_trials=NUM_TRIALS, lengths=[8, 3, 6, 8, 2, 8, 7, 8, 8, 5, 8])


def make_output(batch: Batch, log_rate: Tensor | None = None, *, point: bool = False) -> Output:
    """The answer of some model, the same for a trial whatever batch it comes in."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(NUM_SAMPLES, NUM_TRIALS, 8, 6, generator=generator, dtype=torch.float64)
    log_rate = noise if log_rate is None else log_rate
    mean, sample = noise[0, :, :5, :2], noise[:, :, :5, 2:4]
    chosen = batch.trial
    posterior = Delta(mean[chosen]) if point else Normal(mean[chosen], 0.7)
    prior = Normal(torch.zeros(5, 2).double(), 1.0)
    latent = Latent(posterior, prior, sample[:, chosen], batch.time_mask[:, :5])
    return Output({"latent": latent}, log_rate[:, chosen], PoissonLogRate(log_rate[:, chosen]))


def compute(
    *batches: Batch, log_rate: Tensor | None = None, counts: bool = True, point: bool = False
) -> dict[str, float]:
    scores = Scores(SPEC, NULL, counts=counts)
    for batch in batches:
        scores.update(make_output(batch, log_rate, point=point), batch)
    return scores.compute()


def bits(mean: Tensor, batch: Batch, region: Tensor) -> float:
    """Bits per spike by the formula, over the entries of a region (time, neuron)."""
    scored = region & (batch.weight > 0)
    model = torch.distributions.Poisson(mean).log_prob(batch.target)
    null = torch.distributions.Poisson(NULL.double()).log_prob(batch.target)
    return float((model - null)[scored].sum() / (math.log(2) * batch.target[scored].sum()))


def test_the_density_is_computed_once_for_all_scores(batch: Batch, monkeypatch: pytest.MonkeyPatch):
    calls = []
    log_prob = PoissonLogRate.log_prob
    monkeypatch.setattr(
        PoissonLogRate, "log_prob", lambda self, x: calls.append(1) or log_prob(self, x)
    )
    compute(batch)
    assert len(calls) == 1


def test_uneven_batches_score_as_one(batch: Batch):
    together = compute(batch)
    cut = compute(batch[:1], batch[1:8], batch[8:])
    assert set(cut) == set(together)
    assert cut == pytest.approx(together, rel=1e-9)


def test_regions_hold_the_right_entries(batch: Batch):
    found = compute(batch)
    mean = make_output(batch).emission.mean.mean(0)
    encoded = (torch.arange(8) < 5)[:, None]
    heldout = torch.tensor([n in (1, 4) for n in range(6)])
    assert found["bits_per_spike"] == pytest.approx(bits(mean, batch, encoded & ~heldout))
    assert found["co_bps"] == pytest.approx(bits(mean, batch, encoded & heldout))
    everyone = torch.ones(6, dtype=torch.bool)
    assert found["fp_bps"] == pytest.approx(bits(mean, batch, ~encoded & everyone))


def test_log_likelihood_averages_the_density_over_samples(batch: Batch):
    found = compute(batch)
    density = make_output(batch).emission.log_prob(batch.target).exp().mean(0)
    scored = batch.weight > 0
    assert found["log_likelihood"] == pytest.approx(float(density.log()[scored].mean()))
    scored[..., [0, 2, 3, 5]] = False
    assert found["heldout_log_likelihood"] == pytest.approx(float(density.log()[scored].mean()))


def test_heldin_bound_is_the_bound_of_what_inference_sees(batch: Batch):
    weight = batch.weight.clone()
    weight[:, SPEC.num_encoded_bins :] = 0
    weight[:, :, list(SPEC.heldout)] = 0
    terms = bound(make_output(batch), replace(batch, weight=weight))
    assert compute(batch)["heldin_elbo"] == pytest.approx(float(terms.elbo().mean()))


def test_single_precision_scores_as_double_to_six_digits(batch: Batch):
    log_rate = make_output(batch).factors
    single = compute(batch.to(torch.float32), log_rate=log_rate.float())
    assert single == pytest.approx(compute(batch, log_rate=log_rate), rel=1e-5)


def test_trial_terms_are_means_over_trials(batch: Batch):
    found, output = compute(batch), make_output(batch)
    terms = bound(output, batch)
    assert found["elbo"] == pytest.approx(float(terms.elbo().mean()))
    assert found["kl/latent"] == pytest.approx(float(terms.kl["latent"].mean()))
    iwae = importance_weighted_bound(output, batch)
    assert found["iwae"] == pytest.approx(float(iwae.mean()))


def test_hidden_and_padded_entries_are_not_scored(batch: Batch):
    before = compute(batch)
    target = torch.where(batch.weight > 0, batch.target, 9.0)
    assert compute(Batch(**{**vars(batch), "target": target})) == pytest.approx(before)


def test_the_null_model_scores_nothing(batch: Batch):
    null = NULL.double().log().expand(NUM_SAMPLES, NUM_TRIALS, 8, 6)
    found = compute(batch, log_rate=null)
    for name in ("bits_per_spike", "co_bps", "fp_bps"):
        assert found[name] == pytest.approx(0.0, abs=1e-6)


def test_true_rates_score_and_rates_of_shuffled_trials_do_not():
    spec = toy_spec(num_neurons=12, heldout=(8, 9, 10, 11), num_time_bins=40)
    generator = torch.Generator().manual_seed(0)
    log_rate = torch.randn(60, 40, 12, generator=generator, dtype=torch.float64)
    target = torch.poisson(log_rate.exp(), generator=generator)
    batch = toy_batch(spec, num_trials=60)
    batch = Batch(**{**vars(batch), "target": target})

    def co_bps(rates: Tensor) -> float:
        scores = Scores(spec, target.mean((0, 1)), counts=True)
        scores.update(Output({}, rates[None], PoissonLogRate(rates[None])), batch)
        return scores.compute()["co_bps"]

    assert co_bps(log_rate) > 0.3
    order = torch.randperm(60, generator=generator)
    assert co_bps(log_rate[order]) < 0
    shuffled = log_rate.clone()
    shuffled[..., 8:] = log_rate[..., [9, 10, 11, 8]]
    assert co_bps(shuffled) < 0


def test_scores_of_an_empty_region_are_left_out(batch: Batch):
    spec = toy_spec()
    scores = Scores(spec, NULL, counts=True)
    whole = toy_batch(spec)
    rates = torch.zeros(1, *whole.target.shape, dtype=torch.float64)
    normal = Normal(torch.zeros(len(whole), 1).double(), 1.0)
    latent = Latent(normal, normal, normal.sample((1,)))
    scores.update(Output({"z": latent}, rates, PoissonLogRate(rates)), whole)
    found = scores.compute()
    regions = {"elbo", "heldin_elbo", "iwae", "log_likelihood", "bits_per_spike"}
    assert set(found) == {"kl/z", *regions}
    assert found["heldin_elbo"] == pytest.approx(found["elbo"])


def test_what_is_held_out_does_not_reach_the_heldin_bound(batch: Batch):
    before = compute(batch)
    target = batch.target.clone()
    target[:, :, list(SPEC.heldout)] += 1
    target[:, SPEC.num_encoded_bins :] += 2
    after = compute(Batch(**{**vars(batch), "target": target}))
    assert after["heldin_elbo"] == pytest.approx(before["heldin_elbo"])
    assert after["elbo"] != pytest.approx(before["elbo"])


def test_bits_per_spike_exist_for_counts_only(batch: Batch):
    assert not {"bits_per_spike", "co_bps", "fp_bps"} & set(compute(batch, counts=False))


def test_a_point_posterior_has_no_elbo(batch: Batch):
    found = compute(batch, point=True)
    assert not {"elbo", "heldin_elbo", "iwae"} & set(found)
    assert found["kl/latent"] == 0.0


def test_baselines_are_scored_by_the_same_sums(batch: Batch):
    log_rate = make_output(batch).factors[:1].expand(NUM_SAMPLES, -1, -1, -1)
    whole = compute(batch, log_rate=log_rate)
    scores = Scores(SPEC, NULL, counts=True)
    mean = log_rate[0].exp()
    scores.update_mean(mean, PoissonLogRate(log_rate[0]).log_prob(batch.target), batch)
    assert scores.compute() == pytest.approx(
        {
            name: value
            for name, value in whole.items()
            if name not in ("elbo", "heldin_elbo", "iwae", "kl/latent")
        }
    )
