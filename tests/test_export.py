"""What a fitted model says, in the files and containers of other tools."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from seqvae import EM, InputError, LinearDynamics, Recording, export, fit, infer
from seqvae.analysis import to_pynapple, to_table
from seqvae.console.main import main
from seqvae.data.sources import write_hdf5
from tiny import LORENZ

NLB = ("--format", "nlb", "--dataset_name", "mc_maze")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on trials with conditions, forecast bins and times on the clock of the session."""
    place = tmp_path_factory.mktemp("run")
    recording = LORENZ.load().encode(8)
    names = [f"unit {n}" for n in range(6)]
    recording = replace(
        recording, condition=np.array(["left", "right"])[np.arange(24) % 2],
        start_times=np.arange(24)[::-1] * 0.5, neuron_ids=names,
    )  # fmt: skip
    write_hdf5(recording, place / "data.h5")
    model, learner = partial(LinearDynamics, latent_dim=2), EM(max_iterations=2, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        fit(str(place / "data.h5"), model, learner, run_dir=str(place / "run"))
    return place


@pytest.fixture(scope="module")
def posterior(place):
    return infer(str(place / "run"), split="val")


def test_submission_holds_what_the_benchmark_scores(place, posterior, capsys):
    run, out = str(place / "run"), place / "submission.h5"
    assert main(["export", "--run", run, *NLB, "--num_samples", "3", "--out", str(out)]) == 0
    assert "mc_maze/eval_rates_heldout_forward: 8 x 2 x 2" in capsys.readouterr().out
    with h5py.File(out) as file:
        assert list(file) == ["mc_maze"]
        arrays = {name: values[()] for name, values in file["mc_maze"].items()}
    assert {name: values.shape for name, values in arrays.items()} == {
        "train_rates_heldin": (16, 8, 4), "train_rates_heldout": (16, 8, 2),
        "eval_rates_heldin": (8, 8, 4), "eval_rates_heldout": (8, 8, 2),
        "eval_rates_heldin_forward": (8, 2, 4), "eval_rates_heldout_forward": (8, 2, 2),
    }  # fmt: skip
    recording = LORENZ.load()
    heldout = np.setdiff1d(np.arange(6), recording.heldin)
    counts = posterior.rates.values * 0.01
    for group, neurons in (("heldin", recording.heldin), ("heldout", heldout)):
        np.testing.assert_allclose(arrays[f"eval_rates_{group}"], counts[:, :8, neurons], rtol=1e-5)
        later = arrays[f"eval_rates_{group}_forward"]
        np.testing.assert_allclose(later, counts[:, 8:, neurons], rtol=1e-5)


def test_trials_of_another_file_are_scored_beside_all_that_were_learned_from(place):
    other = Recording(LORENZ.load().activity[:5], 0.01, neuron_ids=[f"unit {n}" for n in range(6)])
    told = export(str(place / "run"), other, out=str(place / "other.h5"), dataset_name="new",
                  num_samples=2)  # fmt: skip
    assert told["arrays"]["new/train_rates_heldin"] == (24, 8, 4)
    assert told["arrays"]["new/eval_rates_heldout"] == (5, 8, 2)


def test_table_has_a_row_for_each_bin_and_a_column_for_each_neuron(place, posterior):
    run, out = str(place / "run"), place / "rates.csv"
    assert main(["export", "--run", run, "--split", "val", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert list(table)[:5] == ["trial", "time", "split", "condition", "start_time"]
    assert list(table)[-6:] == [f"neuron unit {n}" for n in range(6)]
    np.testing.assert_allclose(table.iloc[:, -6:], posterior.rates.values.reshape(80, 6), rtol=1e-5)
    assert (table.condition[:10] == posterior.condition.values[0]).all()
    short = posterior.copy(deep=True)
    short["rates"][0, 7:] = np.nan
    assert len(to_table(short)) == 77
    assert list(to_table(short, "elbo"))[-1] == "elbo"


def test_matlab_reads_every_variable(place, posterior):
    out = place / "posterior.mat"
    told = export(str(place / "run"), out=str(out), split="val")
    found = loadmat(out, squeeze_me=True)
    assert set(told["arrays"]) == set(posterior.data_vars)
    for name in posterior.data_vars:
        np.testing.assert_allclose(found[name], posterior[name].values, rtol=1e-6)
    assert found["neuron"].tolist() == [f"unit {n}" for n in range(6)]
    assert str(found["dims"]["rates"]) == "trial, time, neuron"


def test_pynapple_has_bins_on_the_clock_of_the_session(posterior):
    pytest.importorskip("pynapple")
    posterior = posterior.copy(deep=True)
    posterior["rates"][0, 7:] = np.nan  # the last one on the clock
    frame = to_pynapple(posterior)
    assert frame.columns.tolist() == [f"unit {n}" for n in range(6)]
    assert len(frame) == 77
    starts = np.sort(posterior.start_time.values)
    np.testing.assert_allclose(frame.time_support.start, starts)
    np.testing.assert_allclose(frame.t[:10], starts[0] + (np.arange(10) + 0.5) * 0.01)
    np.testing.assert_allclose(frame.values[:10], posterior.rates.values[-1], rtol=1e-6)
    with pytest.raises(InputError, match="nobody knows when its trials begin"):
        to_pynapple(posterior.drop_vars("start_time"))
    crowded = posterior.assign_coords(start_time=("trial", np.arange(8) * 0.05))
    with pytest.raises(InputError, match="begins before the one before it ends"):
        to_pynapple(crowded)
    with pytest.raises(InputError, match="elbo is not over time"):
        to_pynapple(posterior, "elbo")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--out a.h5", "dataset_name: nlb needs the benchmark's name"),
        ("--out a.h5 --dataset_name ../x", "got '../x'"),
        ("--out a.pdf", "says no format"),
        ("--out a.h5 --format csv", "would be written as .csv"),
        ("--out nowhere/a.csv", "the folder 'nowhere' does not exist"),
        ("--out a.csv --variables [rates,factors]", "csv holds one variable"),
        ("--out a.csv --variables [ratse]", "there is no 'ratse'; did you mean 'rates'"),
        ("--out a.h5 --dataset_name x --split train", "train has trials that were learned from"),
        ("--out a.mat --num_samples 0", "num_samples must be at least 1"),
        ("", "out is required"),
    ],
)
def test_mistake_gets_one_sentence_and_no_file(place, flags, sentence, capsys, monkeypatch):
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert main(["export", "--run", "run", *flags.split()]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert sorted(place.iterdir()) == before
