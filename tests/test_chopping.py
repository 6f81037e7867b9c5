"""Windows of a long recording, and what is known of them merged, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqvae.data import NeuralData, Recording
from seqvae.data.chopping import CrossFade, Moments, chop
from seqvae.data.lazy import LazyActivity
from seqvae.errors import InputError


def recording(num_bins: int, num_trials: int = 1, seed: int = 0) -> Recording:
    values = np.random.default_rng(seed).normal(size=(num_trials, num_bins, 3))
    return Recording(values, 0.02)


@settings(deadline=None, max_examples=60)
@given(
    num_bins=st.integers(2, 300),
    window=st.integers(1, 120),
    overlap=st.floats(0.0, 0.9),
    num_trials=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_chopped_and_merged_is_the_recording(num_bins, window, overlap, num_trials, seed):
    long = recording(num_bins, num_trials, seed)
    chopped = chop(long, window, overlap=overlap)
    assert chopped.recording.num_time_bins == min(window, num_bins)
    sds = np.abs(chopped.recording.read())
    merged, sd = chopped.merge(chopped.recording.read(), sds)
    np.testing.assert_allclose(merged, long.activity, atol=1e-6)
    np.testing.assert_allclose(sd, np.abs(long.activity), atol=1e-6)


def test_windows_are_views_and_hold_every_bin():
    long = recording(1000)
    chopped = chop(long, 100, overlap=0.75)
    views = chopped.recording.activity
    assert isinstance(views, LazyActivity)
    assert np.shares_memory(views._rows, long.activity)
    assert chopped.start.tolist() == [*range(0, 900, 25), 900]
    assert chopped.recording.trial_ids.tolist() == chopped.start.tolist()
    np.testing.assert_array_equal(views[3], long.activity[0, 75:175])


def test_a_mixture_of_windows_has_the_moments_of_one():
    generator = np.random.default_rng(0)
    means, sds = generator.normal(size=(2, 10, 1)), generator.uniform(1, 2, (2, 10, 1))
    fade = CrossFade(4)
    pieces = [*fade.add(0, 10, {"x": Moments(means[0], sds[0])})]
    pieces += fade.add(6, 10, {"x": Moments(means[1], sds[1])})
    pieces += fade.rest()
    mean, sd = (np.concatenate([piece.moments["x"][k] for piece in pieces]) for k in (0, 1))
    assert [piece.start for piece in pieces] == [0, 6]
    weight = np.array([4, 3, 2, 1]) / 5
    rising = np.array([1, 2, 3, 4]) / 5
    for step in range(4):
        one, other = (weight[step], rising[step])
        pair = np.array([means[0, 6 + step, 0], means[1, step, 0]])
        spread = np.array([sds[0, 6 + step, 0], sds[1, step, 0]])
        share = np.array([one, other]) / (one + other)
        expected = share @ pair
        variance = share @ (spread**2 + pair**2) - expected**2
        np.testing.assert_allclose(mean[6 + step, 0], expected)
        np.testing.assert_allclose(sd[6 + step, 0], np.sqrt(variance))
    np.testing.assert_allclose(mean[:6, 0], means[0, :6, 0])
    np.testing.assert_allclose(mean[10:, 0], means[1, 4:, 0])


def test_what_no_window_holds_is_missing():
    values = np.random.default_rng(0).normal(size=(1, 400, 2))
    values[0, 100:300] = np.nan
    long = Recording(values, 0.02)
    chopped = chop(long, 50, overlap=0.5)
    merged, _ = chopped.merge(np.ones((len(chopped.start), 50, 1)))
    seen = np.isfinite(merged[0, :, 0])
    assert seen[:100].all()
    assert seen[300:].all()
    assert not seen[130:270].any()


def test_windows_that_share_bins_are_not_split_at_random():
    long = recording(1000)
    with pytest.raises(InputError, match="windows that share bins"):
        NeuralData(chop(long, 100, overlap=0.2).recording).setup()
    assert len(NeuralData(chop(long, 100, overlap=0.2).recording, val_fraction=0.0).split) == 13
    assert set(NeuralData(chop(long, 100).recording).split) == {"train", "val"}


@pytest.mark.parametrize(
    ("window", "overlap", "sentence"),
    [(0, 0.5, "window_bins must be at least 1"), (10, 1.0, "from 0 to below 1"),
     (10, -0.1, "from 0 to below 1")],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(window, overlap, sentence):
    with pytest.raises(InputError, match=sentence):
        chop(recording(50), window, overlap=overlap)
