"""Transforms against closed forms, and what they learn from training trials alone."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter1d

from seqvae import EM, InputError, LinearDynamics, NeuralData, Run, evaluate, fit, infer
from seqvae.config import to_config
from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.sources import Arrays, write_hdf5
from seqvae.data.transforms import (
    DropDuplicates,
    Rebin,
    SelectNeurons,
    ZScore,
    align,
    dff,
    drop_duplicates,
    rebin,
    resample_behavior,
    select_neurons,
    smooth,
)
from seqvae.observations import Gaussian

RNG = np.random.default_rng


def counts(num_trials=6, num_bins=60, num_neurons=5, seed=0) -> np.ndarray:
    rates = np.linspace(0.05, 0.6, num_neurons)
    return RNG(seed).poisson(rates, (num_trials, num_bins, num_neurons)).astype(np.float32)


@pytest.mark.parametrize("factor", [2, 4, 7])
def test_rebinned_counts_are_those_of_wider_histograms(factor):
    times = [np.sort(RNG(n).uniform(0, 6.0, 50 + 40 * n)) for n in range(4)]
    fine = np.stack([np.histogram(t, np.arange(601) * 0.01)[0] for t in times], axis=1)
    whole = 600 // factor
    edges = np.arange(whole + 1) * factor * 0.01
    wide = np.stack([np.histogram(t, edges)[0] for t in times], axis=1)
    behavior = RNG(9).normal(size=(1, 600, 2))
    behavior[0, 3] = np.nan
    recording = rebin(Recording(fine[None], 0.01, behavior=behavior), factor * 0.01)
    np.testing.assert_array_equal(recording.activity[0], wide)
    assert recording.bin_width == pytest.approx(factor * 0.01)
    expected = [np.nanmean(behavior[0, k * factor : (k + 1) * factor], 0) for k in range(whole)]
    np.testing.assert_allclose(recording.behavior[0], expected, atol=1e-6)


def test_a_wider_bin_with_a_missing_one_is_missing_and_real_values_are_averaged():
    values = RNG(0).normal(size=(3, 20, 2)).astype(np.float32)
    values[1, 13:] = np.nan
    wide = rebin(Recording(values, 0.05), 0.2)
    assert wide.lengths.tolist() == [5, 3, 5]
    np.testing.assert_allclose(wide.activity[0, 0], values[0, :4].mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: rebin(r, 0.025), r"multiple of 0\.01 s.*got 0\.025; take 0\.02"),
        (lambda r: rebin(replace(r, bin_width=None), 0.02), "no bin_width"),
        (lambda r: rebin(r, 7.0), "longer than the recording"),
        (lambda r: select_neurons(r, min_rate=1e6), "leaves none of the 5 neurons"),
        (lambda r: select_neurons(r, ids=[9]), "no neuron 9"),
        (lambda r: select_neurons(r, ids=[1, 1]), "each neuron once"),
        (lambda r: select_neurons(r), "by min_rate, ids or query"),
        (lambda r: select_neurons(r, query="__import__('os')"), "must compare id, rate, position"),
        (lambda r: select_neurons(r, query="().__class__ == 1"), "must compare"),
        (lambda r: select_neurons(r, query="rat > 1"), "no 'rat'"),
        (lambda r: drop_duplicates(r, 3.0), "at most 1, got 3"),
        (lambda r: smooth(r, 0.0), "above 0 s"),
        (lambda r: dff(r), "must be above 0: give raw fluorescence"),
        (lambda r: resample_behavior(r, 0.1), "no behavior"),
        (lambda r: align(r, [0.1, 0.2], (-0.1, 0.1)), "one time for each of the 6 trials"),
        (lambda r: align(r, [99.0] * 6, (-0.1, 0.1)), "around none of the 6 events"),
        (lambda r: align(r, [0.3] * 6, (0.4, 0.1)), "less than a bin"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence) as refused:
        change(Recording(counts(), 0.01))
    assert "\n" not in str(refused.value)


def test_neurons_are_chosen_by_rate_name_and_condition():
    recording = Recording(counts(), 0.01, neuron_ids=list("abcde"), heldin=[0, 3, 4])
    rate = recording.activity.mean((0, 1)) / 0.01
    fast = select_neurons(recording, min_rate=float(rate[2]) - 0.1)
    assert fast.neuron_ids.tolist() == ["c", "d", "e"]
    assert fast.heldin.tolist() == [1, 2]
    np.testing.assert_array_equal(fast.activity, recording.activity[..., 2:])
    assert select_neurons(recording, ids=["d", "a"]).neuron_ids.tolist() == ["d", "a"]
    met = select_neurons(recording, query=f"rate > {rate[0]:g} and not id in ['c', 'e']")
    assert met.neuron_ids.tolist() == ["b", "d"]


def test_a_neuron_sorted_twice_is_dropped_and_one_of_the_same_slow_rate_is_not():
    slow = np.exp(gaussian_filter1d(RNG(0).normal(size=(1, 6000)), 300, axis=1) * 30)
    spikes = RNG(1).poisson(0.3 * np.repeat(slow[..., None], 3, axis=2).clip(0, 5))
    twice = spikes[..., 0] * (RNG(2).random(spikes.shape[:2]) < 0.9)
    recording = Recording(np.concatenate([spikes, twice[..., None]], axis=2), 0.001)
    assert np.corrcoef(recording.activity[0].T)[0, 1] > 0.2
    assert drop_duplicates(recording).neuron_ids.tolist() == [0, 1, 2]


def test_smoothing_is_a_gaussian_over_what_is_there():
    values = RNG(0).normal(size=(2, 80, 3))
    smoothed = smooth(Recording(values, 0.01), 0.03).activity
    inner = gaussian_filter1d(values, 3, axis=1)[:, 20:-20]
    np.testing.assert_allclose(smoothed[:, 20:-20], inner, atol=1e-6)
    values[:, 30] = np.nan
    flat = smooth(Recording(np.where(np.isnan(values), np.nan, 2.0), 0.01), 0.03).activity
    np.testing.assert_allclose(flat[:, np.arange(80) != 30], 2.0, rtol=1e-6)
    assert np.isnan(flat[:, 30]).all()


def test_relative_fluorescence_forgets_scale_and_bleaching():
    bleach = np.linspace(2.0, 1.0, 3000)[None, :, None] * np.array([1.0, 50.0])
    events = (RNG(0).random((1, 3000, 1)) < 0.05) * 0.5
    change = dff(Recording(bleach * (1 + events), 0.1), percentile=50.0, window=10.0).activity
    np.testing.assert_allclose(change[0, :, 0], change[0, :, 1], atol=1e-4)
    np.testing.assert_allclose(change[0, 100:-100, 0], events[0, 100:-100, 0], atol=0.02)


def test_behaviour_comes_from_another_time():
    time = np.arange(100) * 0.01
    recording = Recording(counts(2, 100), 0.01, behavior=np.tile(time[:, None] ** 2, (2, 1, 1)))
    for lag in (0.0, 0.03, -0.02, 0.015):
        moved = resample_behavior(recording, lag).behavior[0, :, 0]
        there = (time + lag >= 0) & (time + lag <= 0.99 + 1e-9)
        np.testing.assert_allclose(moved[there], (time + lag)[there] ** 2, atol=1e-4)
        assert np.isnan(moved[~there]).all()


def test_trials_are_cut_around_events():
    recording = Recording(counts(1, 1000), 0.01, behavior=np.arange(1000.0)[None, :, None])
    events = [1.0, 2.345, np.nan, 9.95, 50.0, -0.05]
    cut = align(recording, events, (-0.1, 0.2))
    assert cut.trial_ids.tolist() == [0, 1, 3, 5]
    assert cut.shape == (4, 30, 5)
    np.testing.assert_array_equal(cut.activity[0], recording.activity[0, 90:120])
    np.testing.assert_array_equal(cut.behavior[1, :, 0], np.arange(224, 254))
    assert np.isnan(cut.activity[2, 15:]).all()
    assert np.isnan(cut.activity[3, :15]).all()
    trials = Recording(counts(3, 50), 0.01, condition=[1, 2, 3])
    assert align(trials, [0.1, np.nan, 0.2], (0.0, 0.1)).condition.tolist() == [1, 3]


def test_numbers_are_learned_from_training_trials_alone():
    values = counts(20, 30)
    settings = {"test_fraction": 0.3, "transforms": [SelectNeurons(min_rate=20.0), ZScore()]}
    data = NeuralData(Recording(values, 0.01), **settings)
    split = data.split
    other = values.copy()
    other[split != "train"] = 9 - other[split != "train"]  # other rates and other spread
    again = NeuralData(Recording(other, 0.01), **settings)
    assert (again.split == split).all()
    assert to_config(list(again.settled)) == to_config(list(data.settled))
    train = data.recording.read(data.trials("train"))
    np.testing.assert_allclose(train.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(train.std((0, 1)), 1, atol=1e-5)
    fast = values[split == "train"].mean((0, 1)) >= 0.2
    assert data.recording.neuron_ids.tolist() == np.flatnonzero(fast).tolist()


def test_one_long_trial_learns_from_its_training_blocks():
    values = counts(1, 2000)
    data = NeuralData(Recording(values, 0.01), transforms=[ZScore()])
    pieces = [slice(s, s + n) for s, n in zip(data.start, data.recording.lengths, strict=True)]
    train = np.concatenate(
        [values[0, p] for p, s in zip(pieces, data.split, strict=True) if s == "train"]
    )
    (learned,) = data.settled
    np.testing.assert_allclose(learned.mean, train.mean(0, dtype=float), rtol=1e-6)


def test_a_transform_that_learns_stands_behind_those_that_do_not():
    with pytest.raises(InputError, match="put it behind Rebin"):
        NeuralData(Recording(counts(), 0.01), transforms=[ZScore(), Rebin(0.02)])


@pytest.fixture(scope="module")
def scaled_run(tmp_path_factory) -> tuple[Run, Recording]:
    recording = Recording(counts(24, 40), 0.01, neuron_ids=list("abcde"))
    folder = tmp_path_factory.mktemp("scaled")
    path = folder / "data.h5"
    write_hdf5(recording, path)
    model = partial(LinearDynamics, latent_dim=1, observation=Gaussian)
    transforms = [Rebin(0.04), SelectNeurons(min_rate=10.0), ZScore()]
    data = NeuralData(str(path), transforms=transforms)
    run = fit(data, model, EM(max_iterations=2), run_dir=str(folder / "run"))
    return Run(run.folder), recording


@pytest.mark.filterwarnings("ignore:.*EM")
def test_new_data_are_transformed_as_those_of_the_run(scaled_run):
    run, recording = scaled_run
    learned = json.loads(run.files.provenance.read_text())["data"]["transforms"]
    assert [tree["class_path"].rpartition(".")[2] for tree in learned] == [
        "Rebin",
        "SelectNeurons",
        "ZScore",
    ]
    assert Run(run.folder).data().recording.bin_width == pytest.approx(0.04)
    again = infer(run, recording)
    own = infer(run)
    np.testing.assert_allclose(again["mean"], own["mean"])
    assert (again["split"] == own["split"]).all()
    part = recording.select(np.arange(5)).arrange(np.array([4, 1, 0, 2, 3]))
    new = infer(run, part)
    np.testing.assert_allclose(new["mean"], own["mean"][:5], atol=1e-5)
    assert set(new["split"].values) == {"new"}
    assert evaluate(run, part)["num_trials"] == 5


def test_a_config_names_transforms_and_provenance_keeps_them(tmp_path):
    write_hdf5(Recording(counts(1, 3000), 0.001), tmp_path / "data.h5")
    config = {
        "data": {
            "source": {"class_path": "HDF5", "init_args": {"path": str(tmp_path / "data.h5")}},
            "transforms": [{"class_path": "Rebin", "init_args": {"bin_width": 0.01}}],
        },
        "model": {"class_path": "LinearDynamics", "init_args": {"latent_dim": 1}},
        "learner": {"class_path": "EM", "init_args": {"max_iterations": 1}},
        "run_dir": str(tmp_path / "run"),
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "mine.yaml")]) == 0
    provenance = json.loads((tmp_path / "run/provenance.json").read_text())
    (tree,) = provenance["config"]["data"]["init_args"]["transforms"]
    assert tree == {
        "class_path": "seqvae.data.transforms.Rebin", "init_args": {"bin_width": 0.01},
    }  # fmt: skip
    assert provenance["data"]["spec"]["bin_width"] == pytest.approx(0.01)


def test_what_learns_is_not_cross_validated():
    data = NeuralData(Arrays(Recording(counts(), 0.01)), transforms=[ZScore()])
    with pytest.raises(InputError, match="ZScore learns from training trials"):
        data.pool()


def test_neurons_sorted_twice_go_by_name_in_new_data_too():
    values = counts(20, 60)
    values = np.concatenate([values, values[..., 3:4]], axis=2)
    values[0, 0, 5] += 1
    recording = Recording(values, 0.001, neuron_ids=list("abcdef"))
    transforms = [DropDuplicates(), Rebin(0.004)]
    data = NeuralData(recording, transforms=transforms)
    assert data.recording.neuron_ids.tolist() == ["a", "b", "c", "e", "f"]
    model = partial(LinearDynamics, latent_dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fit(data, model, EM(max_iterations=1), in_memory=True)
        other = values[:3].copy()
        other[..., 5] = other[..., 5][:, ::-1]  # here they are no duplicates
        new = infer(run, Recording(other, 0.001, neuron_ids=list("abcdef")))
    assert new["neuron"].values.tolist() == ["a", "b", "c", "e", "f"]
