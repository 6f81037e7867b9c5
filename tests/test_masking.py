from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.distributions import Poisson

from seqvae.data import CoordinatedDropout, NeuralData, Recording
from seqvae.data.masking import speckle
from seqvae.data.sources import Arrays
from seqvae.errors import InputError
from seqvae.types import Batch
from toy import toy_batch, toy_spec


def make_data(**options) -> NeuralData:
    """Trials of 6 bins (one of 4), 5 neurons of which 1 and 3 are held out, 2 forecast bins."""
    activity = np.random.default_rng(0).poisson(2.0, (8, 6, 5)).astype(float)
    activity[3, 4:] = np.nan
    activity[2, 1, 0] = np.nan
    activity[2, 1, 1] = np.nan
    options = {"heldout": [1, 3], "forecast_bins": 2, "val_fraction": 0.25} | options
    return NeuralData(Arrays(activity, 0.01), **options)


@pytest.fixture
def data() -> NeuralData:
    return make_data()


def given_to_encoder(data: NeuralData, batch: Batch) -> torch.Tensor:
    given = torch.zeros_like(batch.weight, dtype=torch.bool)
    for column, neuron in enumerate(data.spec.heldin):
        given[:, : data.spec.num_encoded_bins, neuron] = batch.observed_mask[:, :, column]
    return given


def rounded(probability: float) -> float:
    """The nearest multiple of 1 / 65536: an entry has 16 random bits."""
    return round(probability * 65536) / 65536


@pytest.mark.parametrize(("rate", "pass_rate"), [(0.3, 0.0), (0.3, 0.4), (0.7, 1.0), (0.0, 0.5)])
@pytest.mark.parametrize(
    "options", [{}, {"heldout": [], "forecast_bins": 0}, {"heldout": [0, 4]}, {"heldout": [3, 4]}]
)
def test_mean_over_masks_is_the_undropped_log_likelihood(rate, pass_rate, options):
    data = make_data(**options)
    batch = data.batch(data.trials("all")).to(torch.float64)
    generator = torch.Generator().manual_seed(0)
    log_prob = Poisson(1 + torch.rand(batch.target.shape, generator=generator)).log_prob(
        batch.target
    )
    undropped = (batch.weight * log_prob).sum()
    dropout = CoordinatedDropout(rate, pass_rate)
    torch.manual_seed(0)
    draws = torch.stack(
        [(dropout(batch, data.spec.heldin).weight * log_prob).sum() for _ in range(2000)]
    )
    error = 4 * draws.std() / len(draws) ** 0.5 + 1e-9
    assert (draws.mean() - undropped).abs() < error


@pytest.mark.parametrize(("rate", "pass_rate"), [(0.3, 0.0), (0.25, 0.4)])
def test_a_scored_entry_weighs_one_over_its_probability(data, rate, pass_rate):
    batch = data.batch(data.trials("all"))
    dropout = CoordinatedDropout(rate, pass_rate)
    torch.manual_seed(1)
    weights = torch.stack([dropout(batch, data.spec.heldin).weight for _ in range(3000)])
    probability = rounded(rate + (1 - rate) * pass_rate)
    given = given_to_encoder(data, batch)
    values = weights[:, given].unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / probability]))
    scored = (weights[:, given] > 0).float().mean(0)
    spread = (probability * (1 - probability) / len(weights)) ** 0.5
    assert (scored - probability).abs().max() < 5 * spread
    assert (weights[:, ~given] == batch.weight[~given]).all()


@pytest.mark.parametrize("pass_rate", [0.0, 1e-9, 0.37, 1.0])
@pytest.mark.parametrize("rate", [1e-9, 1 / 3, 0.5, 1 - 1e-9])
def test_over_every_draw_the_weight_is_one_and_the_input_itself(monkeypatch, rate, pass_rate):
    levels = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(64, 64, 16)
    monkeypatch.setattr("seqvae.compute.noise.int16", lambda *_, **__: levels)
    batch = toy_batch(toy_spec(num_neurons=16, num_time_bins=64), num_trials=64)
    batch = replace(batch, observed=torch.full_like(batch.observed, 3.0))
    for center in (0.0, torch.full((16,), 2.5, dtype=torch.float64)):
        dropped = CoordinatedDropout(rate, pass_rate)(batch, tuple(range(16)), center=center)
        assert dropped.weight.mean().item() == pytest.approx(1.0, abs=1e-12)
        known = torch.where(dropped.observed_mask, dropped.observed, center)
        assert known.mean().item() == pytest.approx(3.0, abs=1e-9)
        assert 0 < dropped.observed_mask.sum() < 65536
        assert (dropped.weight[~dropped.observed_mask] > 0).all()


@pytest.mark.parametrize("heldout", [[], [0], [4], [0, 4], [1, 3], [0, 2, 3]])
def test_only_entries_given_to_the_encoder_change_their_weight(heldout):
    data = make_data(heldout=heldout)
    batch = data.batch(data.trials("all"))
    given = given_to_encoder(data, batch)
    weight = CoordinatedDropout(0.5)(batch, data.spec.heldin).weight
    assert torch.equal(weight[~given], batch.weight[~given])
    assert set(weight[given].unique().tolist()) == {0.0, 2.0}
    speckled = speckle(batch, data.spec, 0.5, seed=0).weight
    assert (speckled[~given] == 0).all()
    assert set(speckled[given].unique().tolist()) == {0.0, 1.0}


def test_missing_and_padded_entries_keep_weight_zero(data):
    batch = data.batch(data.trials("all"))
    dropped = CoordinatedDropout(0.5, 0.5)(batch, data.spec.heldin)
    assert (dropped.weight[batch.weight == 0] == 0).all()
    assert not dropped.observed_mask[~batch.observed_mask].any()


def test_hidden_entries_are_zero_and_shown_ones_scaled(data):
    batch = data.batch(data.trials("all"))
    dropped = CoordinatedDropout(0.4)(batch, data.spec.heldin)
    shown = dropped.observed_mask
    scaled = batch.observed[shown] / (1 - rounded(0.4))
    torch.testing.assert_close(dropped.observed[shown], scaled)
    assert (dropped.observed[~shown] == 0).all()
    for column, neuron in enumerate(data.spec.heldin):
        both = shown[:, :, column] & (dropped.weight[:, : shown.shape[1], neuron] > 0)
        assert not both.any()


def test_dropout_leaves_the_resident_data_alone(data):
    before = data.batch(data.trials("all"))
    CoordinatedDropout(0.5)(before, data.spec.heldin)
    speckle(before, data.spec, 0.5, seed=0)
    after = data.batch(data.trials("all"))
    for name in (field.name for field in fields(Batch) if field.name != "neurons"):
        assert torch.equal(getattr(before, name), getattr(after, name))


def test_rate_zero_switches_dropout_off(data):
    batch = data.batch([0, 1])
    assert CoordinatedDropout(0.0)(batch, data.spec.heldin) is batch


@pytest.mark.parametrize(("rate", "pass_rate"), [(1.0, 0.0), (-0.1, 0.0), (0.3, 1.1)])
def test_probabilities_out_of_range_are_refused(rate, pass_rate):
    with pytest.raises(InputError, match="coordinated_dropout"):
        CoordinatedDropout(rate, pass_rate)


def test_speckles_are_the_same_in_whatever_batch_a_trial_comes(data):
    together = speckle(data.batch(data.trials("all")), data.spec, 0.3, seed=5)
    for trial in range(8):
        alone = speckle(data.batch([trial]), data.spec, 0.3, seed=5)
        assert torch.equal(alone.observed[0], together.observed[trial])
        assert torch.equal(alone.weight[0], together.weight[trial])
    other = speckle(data.batch(data.trials("all")), data.spec, 0.3, seed=6)
    assert not torch.equal(other.weight, together.weight)


def test_speckles_score_exactly_what_they_hide(data):
    batch = data.batch(data.trials("all"))
    speckled = speckle(batch, data.spec, 0.3, seed=0)
    given = given_to_encoder(data, batch)
    still_given = given_to_encoder(data, speckled)
    assert torch.equal(speckled.weight == 1, given & ~still_given)
    assert (speckled.weight[~given] == 0).all()
    assert 0.2 < speckled.weight.sum() / given.sum() < 0.4
    shown = speckled.observed_mask
    torch.testing.assert_close(speckled.observed[shown], batch.observed[shown] / 0.7)


def test_one_recording_gives_the_encoder_no_hidden_count(data):
    recording = data.recording
    changed = recording.activity.copy()
    batch = speckle(data.batch(data.trials("all")), data.spec, 0.3, seed=0)
    changed[batch.weight.numpy() == 1] += 7
    other = NeuralData(Arrays(Recording(changed, 0.01)), heldout=[1, 3], forecast_bins=2)
    again = speckle(other.batch(data.trials("all")), data.spec, 0.3, seed=0)
    assert torch.equal(again.observed, batch.observed)
