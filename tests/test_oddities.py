"""What a recording hardly should hold is told; what cannot be learned from is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from seqvae import NeuralData, check, fit
from seqvae.console.main import main
from seqvae.crossvalidation.folder import replaced_scores
from seqvae.data import Recording
from seqvae.data.oddities import OddEntries
from seqvae.data.sources import HDF5, SpikeTimes, write_hdf5
from seqvae.errors import InputError

SHAPE = (12, 10, 8)


def counts(**changes: float) -> np.ndarray:
    values = np.random.default_rng(0).poisson(0.5, SHAPE).astype(np.float32)
    for neuron, value in changes.items():
        values[1, 2, int(neuron[1:])] = value
    return values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n3": -1}, r"activity\[1, 2, 3\] is -1: 1 of 960 entries is no count and all others are"),
        ({"n3": 0.5, "n4": 0.5}, r"\[1, 2, 3\] is 0.5: 2 of 960 entries are no count"),
        ({"n6": 1e7}, r"activity\[1, 2, 6\] is 1e\+07, and no other count is above [2-6];"),
        ({"n2": 1e9, "n6": 1e9}, r"activity\[1, 2, 2\] is 1e\+09, and no other count is above"),
    ],
)
def test_single_entries_unlike_all_others_are_told(changes, words) -> None:
    with pytest.warns(UserWarning, match=words):
        Recording(counts(**changes), 0.02)


@pytest.mark.parametrize(
    "values",
    [
        counts(),
        counts(n3=np.nan),
        counts(n3=500),  # a burst of artefacts may be real
        np.random.default_rng(0).normal(size=SHAPE),
        np.where(
            np.random.default_rng(0).random(SHAPE) < 0.1, 0.7, 0.0
        ),  # events of real size among exact zeros
        np.array([[[0.0, 1.0], [1.0, 0.0], [2.0, -1.0]]]),  # too few to say
    ],
)
def test_what_may_be_as_it_is_is_not_told(values) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recording(values, 0.02)


def test_the_largest_and_the_next_largest_are_those_of_the_whole_in_any_order() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        values = generator.integers(0, 6, (5, 4, 3)).astype(np.float32)
        odd = OddEntries()
        for trial, one in enumerate(values):
            odd.add(one[:2], trial)
            odd.add(one[2:], trial, 2)
        different = np.unique(values)
        index, largest = odd.largest
        assert (largest, odd.next_largest) == (different[-1], different[-2])
        assert values[index] == largest
        assert (odd.num_known, odd.num_active) == (60, (values > 0).sum())


def test_counts_that_are_read_when_asked_for_are_looked_at_alike(tmp_path, monkeypatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_hdf5(Recording(counts(n3=1e6), 0.02), tmp_path / "large.h5")
    monkeypatch.setattr("seqvae.data.sizes.LARGE", 1)
    with pytest.warns(UserWarning, match=r"activity\[1, 2, 3\] is 1e\+06"):
        HDF5(str(tmp_path / "large.h5")).load()


def test_a_neuron_without_a_value_is_told_and_nothing_begins_without_it(tmp_path) -> None:
    values = counts()
    values[..., 2] = np.nan
    data = NeuralData(values, bin_width=0.02)
    told = check(data)
    assert told["neurons without a value"] == "2; leave them out"
    assert not told["slowest and fastest neuron (Hz)"].startswith("0 ")
    assert "neurons without a value" not in check(NeuralData(counts(), bin_width=0.02))
    with pytest.raises(InputError, match="neuron 2 has no value in the training trials"):
        fit(data, run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def spikes(scale: float, seconds: float = 100.0) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [scale * np.sort(generator.uniform(0, seconds, 300)) for _ in range(3)]


def test_times_that_are_no_seconds_are_told_or_refused_before_they_are_counted() -> None:
    words = "0.003 a second of each unit; times are in seconds"
    with pytest.warns(UserWarning, match=words):
        SpikeTimes(spikes(1000.0), 0.5, intervals=[(0.0, 1e5)]).load()
    with pytest.raises(InputError, match=r"42 days\), .*divide milliseconds by 1000"):
        SpikeTimes(spikes(1000.0, 3600.0), 0.02, intervals=[(0.0, 3.6e6)]).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpikeTimes(spikes(1.0), 0.02, intervals=[(0.0, 100.0)]).load()
        weeks = [(0.0, 100.0), (5e6, 5e6 + 100.0)]  # of one clock, between which nothing was kept
        SpikeTimes(spikes(1.0), 0.02, intervals=weeks).load()


def test_intervals_that_overlap_are_told() -> None:
    intervals = [(2.0, 3.0), (0.0, 1.0), (0.5, 1.5)]
    with pytest.warns(
        UserWarning, match=r"intervals\[2\] \(0.5 to 1.5 s\) begins before .* \(1 of 3"
    ):
        SpikeTimes(spikes(1.0), 0.02, intervals=intervals).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpikeTimes(spikes(1.0), 0.02, intervals=[(0.0, 0.3), (0.1 + 0.2, 1.0)]).load()


def test_former_scores_that_a_table_lacks_are_counted(tmp_path) -> None:
    table = pd.DataFrame(
        {"model": ["a", "a", "b"], "dim": [1, 2, 1], "trial_fold": 0, "neuron_fold": [0, 0, np.nan],
         "seed": 0, "score": [0.1, 1 / 3, np.nan]}
    )  # fmt: skip
    assert replaced_scores(tmp_path, table) == 0
    table.to_csv(tmp_path / "scores.csv", index=False)
    assert replaced_scores(tmp_path, table) == 0
    assert replaced_scores(tmp_path, table.assign(score=[0.1, 0.4, 0.2])) == 1
    assert replaced_scores(tmp_path, table.iloc[:1]) == 1
    more = pd.concat([table, table.assign(dim=3)])
    assert replaced_scores(tmp_path, more) == 0


def test_words_that_are_no_flag_and_runs_that_are_none_are_named(tmp_path, capsys) -> None:
    file = tmp_path / "spikes"
    file.write_text("")
    for words, said in {
        ("check", str(tmp_path)): "is a folder; give a file, or a pattern such as",
        ("check", str(file)): "has no ending that tells its kind",
        ("evaluate", str(tmp_path / "no")): "does not exist; give the folder that a fit has made",
        ("evaluate", str(file)): "is a file; give the folder",
        ("evaluate", str(tmp_path)): "is no run folder, it has no config.yaml",
        ("crossvalidate", "--data.source", "Lorenz", "--dims", "[1]", "--models.plds",
         "LinearDynamics", "--learners.pldz.max_iterations", "3"): "did you mean 'plds'",
        ("crossvalidate", "--data.source", "Lorenz", "--dims", "[1]", "--models",
         "{plds: LinearDynamics}", "--learners.plds.max_iteration", "3"): "mean 'max_iterations'",
    }.items():  # fmt: skip
        assert main(list(words)) == 2
        assert said in capsys.readouterr().err
