from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from seqvae.baselines.mean_rate import MeanRate, training_moments
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import Binary, Counts, DataKind, Nonnegative, Real, kind_of
from seqvae.errors import InputError
from seqvae.models import VAE
from seqvae.observations import Gaussian, Observation, ZeroInflatedGamma
from seqvae.runs.run import build_model
from tiny import tiny_data

KINDS = [Counts(), Binary(), Real(), Nonnegative()]


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        (Counts(), 3.0, True),
        (Counts(), -1.0, False),
        (Counts(), 0.5, False),
        (Counts(), 2.0**24, False),
        (Counts(), np.nan, True),
        (Binary(), 0.5, True),
        (Binary(), 1.5, False),
        (Binary(), -0.5, False),
        (Real(), -0.5, True),
        (Nonnegative(), 0.5, True),
        (Nonnegative(), np.nan, True),
        (Nonnegative(), -1e-6, False),
    ],
    ids=str,
)
def test_an_observation_model_gets_the_data_it_needs(kind, value, accepted):
    activity = np.ones((3, 4, 2))
    activity[:, :, 1] = np.arange(4) % 2
    activity[1, 2, 0] = value
    activity = Recording(activity, 0.01).activity
    assert kind.accepts(activity) == accepted
    if accepted:
        kind.check(activity)
    else:
        with pytest.raises(InputError, match=re.escape(f"activity[1, 2, 0] is {value:g}, but ")):
            kind.check(activity)


def test_kinds_are_values():
    for kind in KINDS:
        assert copy.deepcopy(kind) == pickle.loads(pickle.dumps(kind)) == kind == type(kind)()
        assert f"{kind}" == kind.name
    assert len(set(KINDS)) == len({kind.name for kind in KINDS}) == len(KINDS)


def test_data_of_no_stated_kind_are_counts_if_all_entries_are():
    assert kind_of([np.array([0.0, 3.0]), np.array([np.nan])]) == Counts()
    assert kind_of([np.ones(2), np.array([0.0, 0.5])]) == kind_of([np.array([-1.0])]) == Real()


def test_only_counts_are_scored_in_bits_per_spike():
    units = {kind.name: kind.score_unit for kind in KINDS}
    nats = dict.fromkeys(("binary", "real", "nonnegative"), "log_likelihood")
    assert units == {"counts": "bits_per_spike"} | nats


def test_a_kind_that_leaves_something_open_is_refused_as_soon_as_it_is_made():
    class Angles(Real):
        around = DataKind.around
        link = DataKind.link

    with pytest.raises(InputError, match="Angles is no whole kind of data; it must define around"):
        Angles()


def test_an_observation_model_without_a_kind_is_refused_when_the_model_is_built():
    class Nameless(Observation):
        forward = Gaussian.forward
        initialize = Gaussian.initialize

        def __init__(self, factor_dim: int, num_neurons: int) -> None:
            super().__init__()

    class Old(Nameless):
        data_kind = "counts"

    class Word(Nameless):
        kind = "counts"

    class Unmade(Nameless):
        kind = Counts

    data = tiny_data()
    data.setup()
    for member, words in (
        (Nameless, "Nameless states no kind of data; say kind = "),
        (Old, r"Old states data_kind, which is read no more; say kind = Counts\(\)"),
        (Word, "Word states kind = 'counts', which is none"),
        (Unmade, "Unmade states kind = <class .*, which is none"),
    ):
        with pytest.raises(InputError, match=words):
            build_model(lambda spec, member=member: VAE(spec, observation=member), data.spec)


def test_a_kind_of_ones_own_reaches_null_model_and_baselines():
    class Signed(Real):
        name = "signed"
        need, cure = "values other than 0", "leave zeros out"

        def outside(self, activity):
            return activity == 0

        def around(self, mean, moments, *, spread):
            return Normal(mean, 2 * spread)

    class Wide(Gaussian):
        kind = Signed()

    values = np.random.default_rng(0).normal(size=(8, 5, 3))
    data = NeuralData(Arrays(values, 0.1), val_fraction=0.25)
    data.setup()
    model = VAE(data.spec, observation=Wide)
    model.initialize(data)
    null = MeanRate.of(values[data.trials("train")], model.observation.kind)
    std = values[data.trials("train")].std((0, 1))
    np.testing.assert_allclose(null.distribution().stddev, 2 * std)
    zeros = NeuralData(Arrays(values * (values > 0), 0.1), val_fraction=0.25)
    with pytest.raises(InputError, match="needs values other than 0; leave zeros out"):
        VAE(data.spec, observation=Wide).initialize(zeros)


def test_training_moments_are_those_of_the_present_entries():
    values = np.random.default_rng(0).normal(size=(7, 5, 3)).clip(0)
    values[2, 3:] = np.nan
    values[..., 2] = np.nan
    moments = training_moments(values)
    present = values[..., :2]
    np.testing.assert_allclose(moments.mean[:2], np.nanmean(present, (0, 1)))
    np.testing.assert_allclose(moments.std[:2], np.nanstd(present, (0, 1)))
    shares = (present > 0).sum((0, 1)) / np.isfinite(present).sum((0, 1))
    np.testing.assert_allclose(moments.nonzero[:2], shares)
    assert all(float(part[2]) == 0 for part in moments)


def test_moments_of_the_data_are_those_of_the_baselines():
    data = tiny_data()
    expected = training_moments(data.recording.activity[data.trials("train")])
    for own, other in zip(data.train_moments, expected, strict=True):
        torch.testing.assert_close(own.double(), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threshold", [-0.1, np.nan, np.inf])
def test_a_threshold_is_zero_or_positive(threshold):
    with pytest.raises(InputError, match="threshold must be zero or positive"):
        ZeroInflatedGamma(3, 2, threshold=threshold)


def test_events_below_the_threshold_are_refused():
    values = np.zeros((3, 4, 2), dtype=np.float32)
    values[1, 2, 0], values[2, 0, 1] = 0.1, 0.3
    ZeroInflatedGamma(3, 2, threshold=0.05).check(Recording(values, 0.1))
    with pytest.raises(InputError, match=re.escape("activity[1, 2, 0] is 0.1, but the")):
        ZeroInflatedGamma(3, 2, threshold=0.1).check(Recording(values, 0.1))
    values[0, 0, 0] = -1
    with pytest.raises(InputError, match="needs values of 0 or above"):
        ZeroInflatedGamma(3, 2, threshold=0.05).check(Recording(values, 0.1))


def test_a_trial_is_named_by_its_number_in_the_recording_whatever_the_part_read():
    values = np.zeros((3, 4, 2), dtype=np.float32)
    values[1, 2, 0] = -1.0
    for kind in (Counts(), Binary(), Nonnegative()):
        with pytest.raises(InputError, match=re.escape("activity[8, 2, 0] is -1, but ")):
            kind.check(values, first=7)
