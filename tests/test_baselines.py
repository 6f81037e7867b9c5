from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.special import expit, gammaln

from seqvae.baselines.mean_rate import MeanRate
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.distributions.kinds import Binary, Counts, Nonnegative, Real


def bits_per_spike(predicted, target, null):
    def log_likelihood(mean):
        return (target * np.log(mean) - mean - gammaln(target + 1)).sum()

    gain = log_likelihood(predicted) - log_likelihood(np.broadcast_to(null, target.shape))
    return gain / np.log(2) / target.sum()


COUNTS = Counts()


def population(num_trials, *, seed=0, num_bins=40, num_neurons=20):
    """Slow one-dimensional drive to log-rates; counts (trial, time, neuron) and their means."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (num_trials, 1))
    drive = np.sin(phase + 2 * np.pi * np.arange(num_bins) / num_bins)
    loading = np.random.default_rng(99).normal(size=num_neurons)
    means = np.exp(-0.5 + drive[..., None] * loading)
    return rng.poisson(means).astype(np.float32), means


def fit(train, val, *, heldin=None, num_encoded_bins=None, kind=COUNTS):
    return SmoothingGLM.fit(
        train,
        val,
        heldin=np.arange(train.shape[-1]) if heldin is None else heldin,
        num_encoded_bins=train.shape[1] if num_encoded_bins is None else num_encoded_bins,
        kind=kind,
    )


HELDIN = np.array([0, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 16, 18, 19])
HELDOUT = np.setdiff1d(np.arange(20), HELDIN)


def test_mean_rate_is_the_mean_of_the_present_training_entries():
    train = np.array([[[1.0, 0.0], [3.0, np.nan]], [[np.nan, 0.0], [5.0, 0.0]]])
    predicted = MeanRate.of(train, COUNTS).predict(np.full((4, 2, 2), np.nan))
    np.testing.assert_allclose(predicted[..., 0], 3.0)
    np.testing.assert_allclose(predicted[..., 1], 1e-9)


def test_smoothing_recovers_constant_rate():
    rng = np.random.default_rng(0)
    train, val = (rng.poisson(2.0, (n, 50, 6)).astype(float) for n in (40, 20))
    model = fit(train, val)
    np.testing.assert_allclose(model.predict(val), 2.0, atol=0.35)
    assert model.readout is None


def test_smoothing_comes_nearer_to_the_true_means_than_counts_or_mean_rate():
    (train, _), (val, means) = population(60), population(20, seed=1)
    predicted = fit(train, val).predict(val)
    mean = MeanRate.of(train, COUNTS).predict(val)

    def error(estimate):
        return np.mean((estimate - means) ** 2)

    assert error(predicted) < 0.4 * error(mean)
    assert error(predicted) < 0.2 * error(val)


def test_smoothing_keeps_constant_activity_constant_at_edges_and_gaps():
    activity = np.full((3, 30, 2), 4.0)
    activity[0, 10:14] = np.nan
    activity[1, 20:] = np.nan
    np.testing.assert_allclose(fit(activity, activity).predict(activity), 4.0)


def test_heldout_neurons_are_predicted_from_heldin_ones():
    (train, _), (val, means) = population(60), population(20, seed=1)
    model = fit(train, val, heldin=HELDIN)
    predicted = model.predict(val)[..., HELDOUT]
    score = bits_per_spike(predicted, val[..., HELDOUT], model.mean[HELDOUT])
    best = bits_per_spike(means[..., HELDOUT], val[..., HELDOUT], model.mean[HELDOUT])
    assert 0.85 * best < score < 1.05 * best


def test_heldout_counts_never_enter_the_features():
    (train, _), (val, _) = population(30), population(10, seed=1)
    model = fit(train, val, heldin=HELDIN, num_encoded_bins=30)
    changed = val.copy()
    changed[..., HELDOUT] = np.nan
    changed[:, 30:] = 77.0
    np.testing.assert_array_equal(model.predict(changed), model.predict(val))


def test_shuffled_heldout_neurons_cannot_be_predicted():
    (train, _), (val, _) = population(60), population(20, seed=1)
    rng = np.random.default_rng(0)
    for data in (train, val):
        data[..., HELDOUT] = rng.permuted(data[..., HELDOUT], axis=0)
        data[..., HELDOUT] = rng.permuted(data[..., HELDOUT], axis=1)
    model = fit(train, val, heldin=HELDIN)
    predicted = model.predict(val)[..., HELDOUT]
    assert abs(bits_per_spike(predicted, val[..., HELDOUT], model.mean[HELDOUT])) < 0.01


def test_forecast_fades_to_the_mean_rate():
    (train, _), (val, _) = population(60, num_bins=60), population(20, seed=1, num_bins=60)
    model = fit(train, val, heldin=HELDIN, num_encoded_bins=30)
    forecast = model.predict(val)[:, 30:]
    np.testing.assert_allclose(forecast[:, -1], np.broadcast_to(model.mean, (20, 20)), rtol=1e-3)
    distance = np.abs(forecast[..., HELDIN] - model.mean[HELDIN]).mean((0, 2))
    assert (np.diff(distance) <= 0).all()
    assert distance[0] > 0.1


def test_data_without_time_do_not_copy_themselves():
    rng = np.random.default_rng(0)
    gain = rng.normal(size=(400, 1, 1))
    means = np.exp(1.0 + gain * rng.normal(size=20))
    counts = rng.poisson(means).astype(np.float32)
    train, val = counts[:300], counts[300:]
    model = fit(train, val, heldin=HELDIN)
    predicted = model.predict(val)
    at_mean = np.broadcast_to(model.mean[HELDIN], predicted[..., HELDIN].shape)
    np.testing.assert_allclose(predicted[..., HELDIN], at_mean, rtol=1e-6)
    target, best = val[..., HELDOUT], means[300:][..., HELDOUT]
    score = bits_per_spike(predicted[..., HELDOUT], target, model.mean[HELDOUT])
    assert score > 0.8 * bits_per_spike(best, target, model.mean[HELDOUT])


def test_missing_and_silent_neurons_give_finite_positive_means():
    (train, _), (val, _) = population(30), population(10, seed=1)
    train[..., HELDIN[0]] = 0.0
    train[..., HELDOUT[0]] = 0.0
    train[..., HELDOUT[1]] = np.nan
    train[:5, 20:] = np.nan
    val[2:4, 5:] = np.nan
    val[0, :, HELDIN[1]] = np.nan
    predicted = fit(train, val, heldin=HELDIN).predict(val)
    assert np.isfinite(predicted).all()
    assert (predicted > 0).all()


def test_real_data_are_read_out_linearly_whatever_their_units():
    rng = np.random.default_rng(0)
    drive = np.cumsum(rng.normal(size=(80, 30, 2)), axis=1)
    loading, units = rng.choice([-1.0, 1.0], (2, 20)), 10.0 ** rng.uniform(-3, 3, 20)
    signal = drive @ loading * units + 5 * units
    activity = signal + rng.normal(size=signal.shape) * units
    train, val = activity[:60], activity[60:]
    model = fit(train, val, heldin=HELDIN, kind=Real())
    residual = (model.predict(val) - signal[60:]) ** 2
    explained = 1 - residual.sum((0, 1)) / ((signal[60:] - model.mean) ** 2).sum((0, 1))
    assert explained[HELDOUT].min() > 0.8
    assert explained[HELDIN].min() > 0.8


@pytest.mark.parametrize("kind", [Real(), Nonnegative()], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_do_not_depend_on_the_unit_of_a_channel(kind, seed):
    """Measured in other units, powers of two, all is the same to the last digit but the unit.

    Channels differ in how slowly they vary and in their noise, so that a choice of settings in
    which one counted more than another would be another choice.
    """
    rng = np.random.default_rng(seed)
    drive = np.sin(rng.uniform(0, 6, (24, 1, 1)) + np.arange(20)[:, None] * [0.2, 0.5, 1.0, 1.5])
    signal = drive @ np.exp(rng.normal(size=(4, 12)))
    values = signal + rng.normal(size=signal.shape) * 4.0 ** rng.integers(-2, 2, 12)
    values = values if kind == Real() else values.clip(0)
    values[3, 7:9, 2] = np.nan
    units = 2.0 ** rng.permuted(np.arange(-18, 18, 3))
    heldin = np.arange(0, 12, 2)

    def predicted(activity):
        train, val = activity[:16], activity[16:]
        model = fit(train, val, heldin=heldin, num_encoded_bins=16, kind=kind)
        return model.predict(activity), (model.width, model.prior_bins, model.readout.width)

    (once, chosen), (again, other) = predicted(values), predicted(values * units)
    assert chosen == other
    np.testing.assert_allclose(again / units, once, rtol=1e-9, atol=0)


def test_binary_data_are_read_out_as_probabilities():
    rng = np.random.default_rng(0)
    drive = np.sin(rng.uniform(0, 6, (80, 1)) + np.arange(30) / 5)[..., None]
    probability = expit(2 * drive * rng.normal(size=20))
    activity = (rng.uniform(size=probability.shape) < probability).astype(np.float32)
    train, val = activity[:60], activity[60:]
    model = fit(train, val, heldin=HELDIN, kind=Binary())
    predicted = model.predict(val)
    assert predicted.min() > 0
    assert predicted.astype(np.float32).max() < 1
    truth = probability[60:][..., HELDOUT]
    error = np.mean((predicted[..., HELDOUT] - truth) ** 2)
    assert error < 0.3 * np.mean((model.mean[HELDOUT] - truth) ** 2)


def test_maze_readout_is_quick_and_beats_the_mean_rate(shared_data):
    import h5py

    with h5py.File(shared_data / "mc_maze_large_sub_20ms_cosmooth.h5") as file:
        train, val = (file[f"{name}_recon_data"][()].astype("f4") for name in ("train", "valid"))
    start = time.perf_counter()
    model = fit(train, val, heldin=np.arange(122))
    assert time.perf_counter() - start < 60
    score = bits_per_spike(model.predict(val)[..., 122:], val[..., 122:], model.mean[122:])
    assert 0.16 < score < 0.19


@pytest.mark.parametrize("kind", [Counts(), Real(), Binary(), Nonnegative()], ids=str)
def test_one_neuron_held_in_is_enough(kind):
    rng = np.random.default_rng(0)
    data = (rng.uniform(size=(20, 10, 3)) < 0.4).astype(np.float64)
    model = fit(data, data, heldin=np.array([1]), kind=kind)
    assert np.isfinite(model.predict(data)).all()


def test_linear_algebra_of_the_readout_works_with_one_thread(monkeypatch):
    from threadpoolctl import threadpool_info

    from seqvae.baselines import readout

    seen = []

    def regress(*arguments, **settings):
        seen.extend(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas")
        return original(*arguments, **settings)

    original = readout.regress
    monkeypatch.setattr(readout, "regress", regress)
    rng = np.random.default_rng(0)
    data = rng.poisson(0.5, (20, 10, 4)).astype(np.float64)
    fit(data, data, heldin=np.array([1, 2]), kind=Counts())
    assert set(seen) == {1}


def test_a_list_is_left_after_two_that_are_no_better_and_the_first_of_equals_wins():
    from seqvae.baselines.readout import _best

    scores = [1.0, 3.0, 2.0, 3.0, 9.0]
    tried = []

    def candidates():
        for number, score in enumerate(scores):
            tried.append(number)
            yield score, number

    assert _best(candidates()) == (3.0, 1)
    assert tried == [0, 1, 2, 3]
    assert _best([(1.0, "a"), (0.0, "b"), (2.0, "c")]) == (2.0, "c")
