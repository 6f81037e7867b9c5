"""A fitted model knows its neurons again, and takes new data whole."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqvae import EM, InputError, LinearDynamics, NeuralData, Run, evaluate, fit, infer
from seqvae.data import Recording
from seqvae.data.neurons import order_of
from seqvae.data.sources import HDF5, Arrays, write_hdf5
from seqvae.observations import Gaussian

N, T = 6, 10
IDS = np.array([f"u{n}" for n in range(N)])
HELDIN = [0, 2, 3, 5]
MODEL = partial(LinearDynamics, latent_dim=2)


def simulated(num_trials: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(num_trials, T, 2)).cumsum(axis=1) / 3
    loading = np.random.default_rng(99).normal(size=(2, N))
    counts = generator.poisson(np.exp(0.5 * latent @ loading)).astype(float)
    counts[0, 4:] = np.nan  # a shorter trial
    counts[1, 2, 3] = np.nan
    return counts


COUNTS, NEW = simulated(16, 0), simulated(5, 1)


def learned(recording, *, model=MODEL, **settings):
    data = NeuralData(recording, heldout=[1, 4])
    return fit(data, model, EM(max_iterations=3, progress=False), in_memory=True, **settings)


@pytest.fixture(scope="module")
def run():
    return learned(Recording(COUNTS, 0.02, neuron_ids=IDS))


@pytest.fixture(scope="module")
def unnamed():
    return learned(Recording(COUNTS, 0.02))


@pytest.fixture(scope="module")
def rates(run):
    return infer(run, Recording(NEW, 0.02, neuron_ids=IDS), num_samples=2).rates


def inferred(run, columns, ids, **fields):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="neuron_ids: the data hold")
        values = NEW if columns is None else columns
        recording = Recording(values, 0.02, neuron_ids=ids, **fields)
        return infer(run, recording, num_samples=2).rates


# --- neurons by name -----------------------------------------------------------------------------


@given(
    order=st.permutations(range(N + 2)),
    lacks=st.sets(st.sampled_from([1, 4])),
    has_more=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_rates_follow_neurons_in_any_order_and_whatever_else_was_recorded(
    run, rates, order, lacks, has_more
):
    """Held-out neurons may be lacking; if none does, there may be others."""
    values = np.concatenate([NEW, NEW[..., :2] + 1], axis=2)
    ids = np.array([*IDS, "x0", "x1"])
    unknown = {N, N + 1} if lacks or not has_more else set()
    columns = [n for n in order if n not in lacks | unknown]
    found = inferred(run, values[..., columns], ids[columns])
    assert found.neuron.values.tolist() == IDS.tolist()
    np.testing.assert_array_equal(found.values, rates.values)


def test_numbers_are_names_whatever_their_type():
    order = [3, 1, 0, 2]
    for ids in (np.array([7, 8, 9, 10]), np.array([7.0, 8.0, 9.0, 10.0]), np.array(list("789a"))):
        assert order_of(ids[order], ids).tolist() == [2, 1, 3, 0]
    assert order_of(np.array([8.0, 7.0]), np.array(["7", "8"])).tolist() == [1, 0]


def test_given_numbers_name_neurons_and_default_ones_do_not():
    recording = Recording(COUNTS, 0.02)
    assert recording.neuron_names is None
    assert replace(recording, bin_width=0.01).select([1]).neuron_names is None
    numbered = Recording(COUNTS, 0.02, neuron_ids=np.arange(N))
    assert numbered.neuron_names.tolist() == list(range(N))
    assert numbered.checksum == recording.checksum


def test_a_file_tells_names_only_if_there_are_some(tmp_path):
    for name, ids in (("a", None), ("b", IDS)):
        write_hdf5(Recording(COUNTS, 0.02, neuron_ids=ids), tmp_path / name)
        names = HDF5(str(tmp_path / name)).load().neuron_names
        assert (None if names is None else names.tolist()) == (None if ids is None else [*IDS])


def test_another_animal_is_refused(run):
    words = r"neuron_ids: the data lack 6 neurons \(the first is 'u0'\) of the model, and hold 6 "
    with pytest.raises(InputError, match=words + r"neurons \(the first is 'x0'\)"):
        inferred(run, NEW, np.array([f"x{n}" for n in range(N)]))
    with pytest.raises(InputError, match="the data lack neuron 'u2' of the model, and hold neuron"):
        inferred(run, NEW, np.where(IDS == "u2", "other", IDS))
    with pytest.raises(InputError, match="the data lack neuron 'u4' of the model, and hold neuron"):
        inferred(run, NEW, np.where(IDS == "u4", "other", IDS))  # held out
    with pytest.raises(InputError, match="the data lack neuron 'u5' of the model; give"):
        inferred(run, NEW[..., :5], IDS[:5])
    with pytest.raises(InputError, match="'u0', which neuron 0 is called, too"):
        inferred(run, NEW, np.where(IDS == "u5", "u0", IDS))


def test_what_is_left_out_is_told(run):
    values, ids = np.concatenate([NEW, NEW[..., :1] + 1], axis=2), np.array([*IDS, "x"])
    with pytest.warns(UserWarning, match="the data hold neuron 'x' that the model does not know"):
        infer(run, Recording(values, 0.02, neuron_ids=ids), num_samples=2)


def test_neurons_without_names_on_a_side_go_by_position(run, unnamed, rates):
    by_position = inferred(run, NEW, None)
    assert by_position.neuron.values.tolist() == IDS.tolist()
    np.testing.assert_array_equal(by_position.values, rates.values)
    reversed_names = inferred(unnamed, NEW, IDS[::-1])
    np.testing.assert_array_equal(reversed_names.values, rates.values)
    with pytest.warns(UserWarning, match="taken for those that are held in, in their order"):
        heldin_only = inferred(run, NEW[..., HELDIN], None)
    assert heldin_only.neuron.values.tolist() == IDS.tolist()
    np.testing.assert_array_equal(heldin_only.values, rates.values)


def test_numbers_in_another_order_name_the_neurons_of_a_run_that_numbers_them(unnamed, rates):
    for order in ([5, 0, 4, 2, 1, 3], [5, 3, 0, 2]):
        by_number = inferred(unnamed, NEW[..., order], np.array(order))
        np.testing.assert_array_equal(by_number.values, rates.values)
    with pytest.warns(UserWarning, match="taken for those that are held in, in their order"):
        by_position = inferred(unnamed, NEW[..., HELDIN], np.arange(4))
    np.testing.assert_array_equal(by_position.values, rates.values)


def test_a_saved_run_knows_its_neurons_and_an_earlier_one_asks_its_data(run, rates, tmp_path):
    folder = run.save(tmp_path / "run").folder
    found = inferred(Run(folder), NEW[..., ::-1], IDS[::-1])
    np.testing.assert_array_equal(found.values, rates.values)
    path = folder / "provenance.json"
    content = json.loads(path.read_text())
    for name in ("neuron_ids", "train_moments"):
        del content["data"][name]
    path.write_text(json.dumps(content))
    assert Run(folder).neuron_names() is None  # its data were in memory
    assert run.remember(run.model(), run.data()).neuron_names().tolist() == IDS.tolist()
    scores = evaluate(Run(folder), NEW, bin_width=0.02, num_samples=2)["baselines"]
    assert scores["mean_rate"]["bits_per_spike"] == pytest.approx(0, abs=1e-5)
    content["data"]["neuron_ids"] = ["a", ["b"]]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="neuron_ids has shape"):
        infer(Run(folder), NEW, bin_width=0.02)


def test_the_data_of_the_run_in_another_order_are_those_of_the_run(run):
    own = evaluate(run, num_samples=2)
    again = Recording(COUNTS[..., ::-1], 0.02, neuron_ids=IDS[::-1])
    assert evaluate(run, again, num_samples=2) == own
    assert own["split"] == "val"


def test_weights_of_other_neurons_are_refused_to_begin_with(run):
    learn = partial(learned, init_from=run)
    learn(Recording(COUNTS, 0.02, neuron_ids=IDS))
    learn(Recording(COUNTS, 0.02))
    with pytest.raises(InputError, match=r"init_from: neuron 0 is 'u5' in the data and 'u0' in "):
        learn(Recording(COUNTS, 0.02, neuron_ids=IDS[::-1]))
    with pytest.raises(InputError, match=r"init_from: neuron 2 is 'x' .*; give its neurons"):
        learn(Recording(COUNTS, 0.02, neuron_ids=np.where(IDS == "u2", "x", IDS)))


# --- new data are not training data --------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda counts: NeuralData(Arrays(counts, 0.02)), None])
def test_one_new_trial_stays_one(run, wrap):
    trial = COUNTS[2:3]
    found = infer(run, trial, bin_width=0.02) if wrap is None else infer(run, wrap(trial))
    assert dict(found.sizes)["trial"] == 1
    assert dict(found.sizes)["time"] == T
    assert found.split.values.tolist() == ["new"]


def test_all_new_trials_are_scored_by_what_the_run_knows(run):
    own = run.data()
    scores = evaluate(run, NeuralData(Arrays(NEW, 0.02), val_fraction=0.5), num_samples=2)
    assert (scores["split"], scores["num_trials"]) == ("all", 5)
    assert scores["baselines_learned_on"] == "the training trials of the run"
    mean = own.recording.activity[own.trials("train")]
    mean = np.nanmean(mean, axis=(0, 1))
    seen = np.isfinite(NEW)
    log_mean = np.where(seen, np.nan_to_num(NEW) * np.log(mean) - mean, 0.0)
    from scipy.special import gammaln

    expected = (log_mean - np.where(seen, gammaln(np.nan_to_num(NEW) + 1), 0)).sum() / seen.sum()
    assert scores["baselines"]["mean_rate"]["log_likelihood"] == pytest.approx(expected, rel=1e-5)
    assert scores["baselines"]["mean_rate"]["bits_per_spike"] == pytest.approx(0, abs=1e-5)


def test_a_new_trial_is_scored_alike_whatever_comes_with_it(run):
    each = [evaluate(run, NEW[i : i + 1], bin_width=0.02, num_samples=2) for i in (2, 3)]
    both = evaluate(run, NEW[2:4], bin_width=0.02, num_samples=2)
    for name in ("mean_rate", "smoothing_glm"):
        mean = np.mean([one["baselines"][name]["log_likelihood"] for one in each])
        assert both["baselines"][name]["log_likelihood"] == pytest.approx(mean, rel=1e-5)


def test_a_split_is_that_of_the_file_or_none(run):
    split = np.array(["train", "test", "test", "val", "val"])
    data = Recording(NEW, 0.02, split=split)
    assert infer(run, data, num_samples=2).sizes["trial"] == 5
    assert evaluate(run, data, num_samples=2)["num_trials"] == 2
    assert evaluate(run, data, split="all", num_samples=2)["num_trials"] == 5
    assert evaluate(run, data, split="train", num_samples=2)["num_trials"] == 1
    with pytest.raises(InputError, match="split 'test': the data are not those of the run"):
        evaluate(run, NEW, bin_width=0.02, split="test")


def test_own_trials_given_again_are_split_as_they_were(unnamed, tmp_path):
    run = Run(unnamed.save(tmp_path / "run").folder)
    run.config["data"]["init_args"]["split_seed"] = 5
    run.config["data"]["init_args"]["val_fraction"] = 0.5
    found = infer(run, COUNTS, bin_width=0.02, num_samples=2)
    own = NeuralData(Recording(COUNTS, 0.02), split_seed=5, val_fraction=0.5)
    assert found.split.values.tolist() == own.split.tolist()


def test_without_its_data_a_run_has_its_training_moments(run, tmp_path):
    folder = run.save(tmp_path / "run").folder
    scores = evaluate(Run(folder), NEW, bin_width=0.02, num_samples=2)
    whole = evaluate(run, NEW, bin_width=0.02, num_samples=2)
    assert "are not at hand" in scores["baselines_learned_on"]
    assert list(scores["baselines"]) == ["mean_rate"]
    for name, value in whole["baselines"]["mean_rate"].items():
        assert scores["baselines"]["mean_rate"][name] == pytest.approx(value, abs=1e-5)


def test_behaviour_is_read_as_learned_on_the_training_trials_of_the_run():
    generator = np.random.default_rng(3)
    weights = generator.normal(size=(N, 1))
    fields = [
        {"behavior": np.nan_to_num(counts) @ weights + 5.0, "neuron_ids": IDS}
        for counts in (COUNTS, NEW)
    ]
    run = learned(Recording(COUNTS, 0.02, **fields[0]))
    scores = evaluate(run, Recording(NEW, 0.02, **fields[1]), num_samples=2)
    assert scores["behavior_r2"][0] < 1
    assert scores["baselines"]["smoothing_glm"]["nlb_behavior_r2"] > -1
    wider = Recording(NEW, 0.02, behavior=np.repeat(fields[1]["behavior"], 2, axis=2))
    assert "behavior_r2" not in evaluate(run, wider, num_samples=2)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_work_counts_trials_on_the_error_stream_of_a_terminal(run, monkeypatch, is_terminal):
    class Stream(StringIO):
        def isatty(self):
            return is_terminal

    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("seqvae.compute.progress._PATIENCE", 0.0)
    infer(run, num_samples=2)
    evaluate(run, num_samples=2)
    assert ("infer:" in stream.getvalue(), "evaluate:" in stream.getvalue()) == 2 * (is_terminal,)


def test_gain_of_real_values_is_the_difference_of_log_likelihoods_per_entry():
    values = np.random.default_rng(5).normal(size=(12, T, N)).cumsum(axis=1)
    run = learned(Recording(values, 0.02), model=partial(MODEL, observation=Gaussian))
    scores = evaluate(run, num_samples=4)
    assert set(scores["gain"]) == {"mean_rate", "smoothing_glm"}
    for name, gain in scores["gain"].items():
        there = scores["baselines"][name]["heldout_log_likelihood"]
        assert gain["mean"] == pytest.approx(scores["heldout_log_likelihood"] - there, abs=1e-4)
        assert gain["unit"] == "nats per entry"
