"""Several sessions are one recording in which each trial lacks the others' neurons."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqvae
from seqvae.config import from_config, to_config
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Sessions, as_source, write_npz
from seqvae.errors import InputError
from seqvae.learning import EM
from seqvae.models import LinearDynamics

NEURONS = {"a": 4, "b": 3, "c": 5}


def recording(seed: int, neurons: int = 4, trials: int = 12, bins: int = 9, **beside: Any):
    counts = np.random.default_rng(seed).poisson(1.5, (trials, bins, neurons))
    return Recording(counts, 0.02, **beside)


def three(**beside: Any) -> dict[str, Recording]:
    return {
        name: recording(seed, number, **beside)
        for seed, (name, number) in enumerate(NEURONS.items())
    }


def sessions(recordings: dict[str, Recording]) -> Sessions:
    return Sessions([*recordings.values()], names=[*recordings])


def data_of(recordings: dict[str, Recording], **settings: Any) -> NeuralData:
    return NeuralData(sessions(recordings), **settings)


def test_each_trial_holds_its_own_session_and_misses_the_others() -> None:
    parts = three(behavior=np.ones((12, 9, 2)), condition=np.arange(12) % 3)
    whole = sessions(parts).load()
    assert whole.shape == (36, 9, 12)
    neuron = 0
    for place, (name, part) in enumerate(parts.items()):
        trials, own = np.arange(12) + 12 * place, np.arange(part.num_neurons) + neuron
        activity = whole.read(trials)
        assert np.array_equal(activity[..., own], part.read())
        assert np.isnan(np.delete(activity, own, axis=2)).all()
        assert set(whole.trial_sessions[trials]) == {name}
        assert set(whole.neuron_sessions[own]) == {name}
        neuron += part.num_neurons
    assert np.array_equal(whole.condition, np.tile(np.arange(12) % 3, 3))
    assert np.array_equal(whole.behavior, np.ones((36, 9, 2)))
    assert whole.neuron_ids[4] == "b/0"


def test_a_session_alone_is_the_recording_itself() -> None:
    alone = recording(0)
    assert Sessions([alone]).load() is alone


def test_trials_of_unequal_length_keep_theirs() -> None:
    whole = sessions({"a": recording(0, bins=9), "b": recording(1, bins=6)}).load()
    assert whole.lengths.tolist() == [9] * 12 + [6] * 12


def test_every_session_is_split_and_held_out_as_if_it_were_alone() -> None:
    parts = three(condition=np.arange(12) % 3)
    settings = {"val_fraction": 0.25, "test_fraction": 0.25, "heldout": 0.3}
    joint = data_of(parts, **settings)
    alone = [NeuralData(part, **settings) for part in parts.values()]
    assert np.array_equal(joint.split, np.concatenate([one.split for one in alone]))
    starts = np.cumsum([0, *NEURONS.values()])
    heldin = [start + n for start, one in zip(starts, alone, strict=False) for n in one.spec.heldin]
    assert list(joint.spec.heldin) == heldin


def test_every_trial_is_in_one_batch_of_an_epoch() -> None:
    data = data_of(three(), batch_size=7, seed=3)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    trials = np.concatenate([batch.trial.numpy() for batch in loader])
    assert sorted(trials.tolist()) == data.trials("train").tolist()


def test_held_in_neurons_of_files_are_joined() -> None:
    whole = sessions({"a": recording(0, heldin=[0, 2]), "b": recording(1, neurons=3)}).load()
    assert whole.heldin.tolist() == [0, 2, 4, 5, 6]


def test_a_pattern_of_paths_names_the_files_that_are_there(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_npz(recording(ord(name)), tmp_path / f"{name}.npz")
    source = as_source(str(tmp_path / "*.npz"))
    assert source.sources == [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    data = NeuralData(source)
    assert data.sessions == ("a", "b")
    again = from_config(to_config(data), NeuralData)
    assert again.recording.checksum == data.recording.checksum


def test_the_sessions_of_arrays_stand_in_no_config() -> None:
    assert to_config(sessions(three())) is None


def test_of_a_session_no_other_trial_is_in_any_split() -> None:
    data = data_of(three())
    part = data.of_session("b")
    assert set(part.trials("all")) == set(range(12, 24))
    assert set(part.trials("val")) == set(data.trials("val")) & set(range(12, 24))
    with pytest.raises(InputError, match="session 'd' is unknown"):
        data.of_session("d")
    with pytest.raises(InputError, match="of one session, leave it out"):
        NeuralData(recording(0)).of_session("a")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bin_width": 0.01}, "session 'b' has bins of 0.01 s, and session 'a' of 0.02 s"),
        ({"inputs": np.zeros((12, 9, 1))}, "inputs: session 'b' has 1, and session 'a' 0"),
        ({"split": ["train", "val"] * 6}, "session 'a' does not say which trials validate"),
        ({"num_encoded_bins": 7}, "forecast bins: session 'b' has others"),
    ],
    ids=["width", "inputs", "split", "forecast"],
)
def test_a_session_that_does_not_go_with_the_first_is_refused(changes, sentence: str) -> None:
    counts = np.random.default_rng(1).poisson(1.5, (12, 9, 3))
    other = Recording(counts, **{"bin_width": 0.02, **changes})
    with pytest.raises(InputError, match=sentence):
        sessions({"a": recording(0), "b": other}).load()


def test_a_session_without_spikes_is_refused(tmp_path: Path) -> None:
    write_npz(recording(0), tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", activity=np.zeros((3, 4, 5)), bin_width=0.02)
    with pytest.raises(InputError, match=r"sources\[1\]: .* the recording is silent"):
        Sessions(str(tmp_path / "*.npz")).load()


def test_behaviour_of_other_dimensions_is_refused() -> None:
    parts = {name: recording(size, behavior=np.ones((12, 9, size)))
             for name, size in (("a", 2), ("b", 3))}  # fmt: skip
    with pytest.raises(InputError, match="session 'b' has 3 dimensions, and session 'a' 2"):
        sessions(parts).load()


def test_a_session_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sessions 'a' and 'b' hold the same activity"):
        sessions({"a": recording(0), "b": recording(0)}).load()
    with pytest.raises(InputError, match="twice"):
        Sessions([str(tmp_path / "a.npz"), str(tmp_path / "." / "a.npz")])
    with pytest.raises(InputError, match="names must name each of the 2 sessions otherwise"):
        Sessions([recording(0), recording(1)], names=["a", "a"]).load()


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_npz(recording(ord(name)), tmp_path / f"{name}.npz")
    source = Sessions(str(tmp_path / "*.npz"))
    (tmp_path / "b.npz").unlink()
    with pytest.raises(InputError, match=r"sources\[1\]: .*b.npz' does not exist"):
        source.load()
    with pytest.raises(InputError, match="no file is named like"):
        Sessions(str(tmp_path / "*.h5"))


def test_behaviour_that_one_session_lacks_is_missing_there() -> None:
    parts = {"a": recording(0, behavior=np.ones((12, 9, 2))), "b": recording(1)}
    with pytest.warns(match="behavior: session 'b' has none"):
        whole = sessions(parts).load()
    assert np.isnan(whole.behavior[12:]).all()


def test_conditions_that_one_session_lacks_are_left_out() -> None:
    parts = {"a": recording(0, condition=np.arange(12) % 2), "b": recording(1)}
    with pytest.warns(match="condition: session 'b' has none"):
        assert sessions(parts).load().condition is None


def test_a_run_answers_by_session(tmp_path: Path) -> None:
    for name, part in three().items():
        write_npz(part, tmp_path / f"{name}.npz")
    data = NeuralData(str(tmp_path / "*.npz"), heldout=0.3)
    model = partial(LinearDynamics, latent_dim=2)
    folder = str(tmp_path / "run")
    seqvae.fit(data, model, EM(max_iterations=2, progress=False), run_dir=folder)
    joint = seqvae.infer(folder, num_samples=2)
    assert set(joint.trial_session.values) == set(NEURONS)
    for name, number in NEURONS.items():
        own = seqvae.infer(folder, session=name, num_samples=2)
        assert own.sizes["trial"] == 12
        assert own.sizes["neuron"] == number
        there = joint.rates.sel(trial=own.trial, neuron=own.neuron)
        assert np.array_equal(there.values, own.rates.values)
        assert not np.isnan(own.activity.values).any()
    scores = seqvae.evaluate(folder, num_samples=2)
    of_all = [one["log_likelihood"] for one in scores["sessions"].values()]
    weights = list(NEURONS.values())  # each has as many trials and bins
    assert scores["log_likelihood"] == pytest.approx(np.average(of_all, weights=weights))
    with pytest.raises(InputError, match="session 'd' is unknown"):
        seqvae.infer(folder, session="d")
