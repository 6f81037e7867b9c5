from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seqvae import EM, LinearDynamics, evaluate, fit, infer
from seqvae.config import to_config
from seqvae.console.main import main
from seqvae.crossvalidation.division import Division
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Lorenz, write_npz
from seqvae.data.windows import (
    WINDOWS_PER_BLOCK,
    Stretch,
    autocorrelation_time,
    gap_bins,
    held_blocks,
    stretches_apart,
)
from seqvae.errors import InputError


def long_recording(num_bins=400, num_neurons=4, seed=0, **fields) -> Recording:
    generator = np.random.default_rng(seed)
    counts = generator.poisson(1.5, (1, num_bins, num_neurons)).astype(np.float32)
    return Recording(counts, 0.02, **fields)


def bins_of(data: NeuralData, split: str) -> np.ndarray:
    chosen = np.flatnonzero((data.split == split) | (split == "all"))
    assert data.start is not None
    pieces = zip(data.start[chosen], data.recording.lengths[chosen], strict=True)
    return np.concatenate([np.arange(start, start + length) for start, length in pieces])


def test_one_trial_too_short_for_windows_is_refused_and_learned_from_whole():
    recording = long_recording(30, seed=0)
    with pytest.raises(InputError, match="one trial of 30 bins leaves 6 to score, too few"):
        NeuralData(recording).setup()
    assert NeuralData(recording, val_fraction=0.0).recording.shape == recording.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a gap that is shorter than chance memory
        assert NeuralData(recording, window_bins=3).recording.num_time_bins == 3


@settings(deadline=None, max_examples=30)
@given(
    num_bins=st.integers(40, 500),
    val=st.floats(0.05, 0.4),
    test=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 50),
    window_bins=st.sampled_from([None, 1, 13, 10_000]),
)
def test_no_bin_of_a_scored_window_is_within_the_gap_of_a_learned_one(
    num_bins, val, test, seed, window_bins
):
    recording = long_recording(num_bins, seed=seed)
    shortest = min(max(round(share * num_bins), 1) for share in (val, test or val))
    assume(window_bins is not None or shortest > 4 * WINDOWS_PER_BLOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a gap that is shorter than chance memory
        data = NeuralData(
            recording, val_fraction=val, test_fraction=test, split_seed=seed,
            window_bins=window_bins,
        )  # fmt: skip
        data.setup()
    train, scored = bins_of(data, "train"), {"val": bins_of(data, "val")}
    assert len(scored["val"]) == max(round(val * num_bins), 1)
    if test:
        scored["test"] = bins_of(data, "test")
        assert scored["test"].tolist() == list(range(num_bins - round(test * num_bins), num_bins))
    gap = gap_bins(autocorrelation_time(recording.activity), min(map(len, scored.values())))
    for bins in scored.values():
        assert np.diff(bins).tolist() == [1] * (len(bins) - 1)
        assert np.abs(bins[:, None] - train).min() > gap
    if window_bins is not None:
        assert data.recording.num_time_bins <= window_bins


@pytest.mark.parametrize("window_bins", [None, 30])
def test_windows_in_order_are_the_recording_itself(window_bins):
    generator = np.random.default_rng(1)
    recording = long_recording(
        inputs=generator.normal(size=(1, 400, 2)),
        behavior=generator.normal(size=(1, 400, 3)),
        rates=generator.uniform(1, 9, (1, 400, 4)),
        condition=np.array(["a"]),
        neuron_ids=np.array(list("wxyz")),
    )
    data = NeuralData(recording, test_fraction=0.1, window_bins=window_bins)
    assert bins_of(data, "all").tolist() == list(range(400))
    assert data.recording.trial_ids.tolist() == data.start.tolist()
    for name in ("activity", "inputs", "behavior", "rates"):
        pieces = getattr(data.recording, name)
        lengths = data.recording.lengths
        joined = np.concatenate([row[:n] for row, n in zip(pieces, lengths, strict=True)])
        np.testing.assert_array_equal(joined, getattr(recording, name)[0])
    assert set(data.recording.condition) == {"a"}
    assert data.recording.neuron_ids.tolist() == list("wxyz")
    assert set(data.split) == {"train", "val", "test", "gap"}


def test_windows_without_any_value_are_left_out():
    values = long_recording().activity.copy()
    values[:, 100:160] = np.nan
    data = NeuralData(Recording(values, 0.02), window_bins=10)
    assert not {110, 120, 130, 140} & set(bins_of(data, "all").tolist())


def test_a_long_memory_makes_a_wide_gap_and_long_windows():
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(4001, 3))
    values = [noise[0]]
    for step in noise[1:]:
        values.append(0.9 * values[-1] + step)
    slow = NeuralData(Recording(np.array(values)[None], 0.02))
    fast = NeuralData(Recording(noise[None], 0.02))
    memory = autocorrelation_time(np.array(values)[None])
    assert 10 < memory < 40
    assert (slow.split == "gap").sum() >= 1
    assert len(bins_of(slow, "gap")) in (gap_bins(memory, 800), 2 * gap_bins(memory, 800))
    assert fast.recording.num_time_bins == 50 < slow.recording.num_time_bins <= 200


def test_a_block_too_short_for_the_memory_is_told():
    time = np.arange(200)
    wave = np.sin(time[None, :, None] / 30) + np.zeros((1, 1, 2)) + [0.0, 1.0]
    with pytest.warns(UserWarning, match="a block that is scored has no more than 40"):
        NeuralData(Recording(wave), window_bins=10).setup()


def test_several_trials_and_a_trial_kept_whole_are_not_cut():
    data = NeuralData(Lorenz(num_trials=20, num_val=5, num_time_bins=30))
    assert data.start is None
    assert data.recording.num_trials == 20
    whole = NeuralData(long_recording(), val_fraction=0.0)
    assert whole.start is None
    assert whole.recording.activity.shape == (1, 400, 4)
    assert whole.pool().num_trials == 1
    images = NeuralData(Recording(np.ones((1, 1, 4)), split=np.array(["train"])))
    assert images.start is None


def test_what_is_divided_further_ends_before_the_test_block_and_its_gap():
    recording = long_recording()
    data = NeuralData(recording, test_fraction=0.2)
    pools = [data.pool()]
    data.setup()
    pools.append(data.pool())
    blocks = held_blocks(recording, val_fraction=0.0, test_fraction=0.2, seed=0)
    stop = blocks.train[0].stop
    assert stop < 320
    for pool in pools:
        np.testing.assert_array_equal(pool.activity, recording.activity[:, :stop])


@pytest.mark.parametrize(
    ("recording", "arguments", "sentence"),
    [
        (long_recording(), {"val_fraction": 0.6, "test_fraction": 0.5}, "leave none of the 400"),
        (long_recording(), {"val_fraction": 1.0}, "val_fraction must be"),
        (long_recording(), {"window_bins": 0}, "window_bins must be at least 1"),
        (long_recording(), {"forecast_bins": 60}, "forecast_bins must be from 0 to 19"),
        (Recording(np.ones((2, 9, 1))), {"window_bins": 3}, "window_bins cuts one .*2 trials"),
    ],
)
def test_windows_that_cannot_be_are_refused(recording, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        NeuralData(recording, **arguments).setup()


def test_stretches_lie_apart_from_what_is_held():
    assert stretches_apart([], 10, gap=3) == [Stretch(0, 10)]
    assert stretches_apart([Stretch(4, 6)], 10, gap=1) == [Stretch(0, 3), Stretch(7, 10)]
    assert stretches_apart([Stretch(0, 6)], 10, gap=4) == []


def test_blocks_of_a_division_are_windows_of_the_same_kind():
    recording = long_recording()
    settings = {"scheme": "fold_in", "rows": "auto", "trial_folds": 4, "neuron_folds": 2}
    division = Division.of(recording, **settings, gap=5, seed=0)
    train = division.train(1)
    lengths = train.lengths
    for start, length, row in zip(train.trial_ids, lengths, train.activity, strict=True):
        np.testing.assert_array_equal(row[:length], recording.activity[0, start : start + length])
        assert start + length <= 95 or start >= 205


def test_a_saved_config_is_that_of_before(tmp_path):
    write_npz(long_recording(), tmp_path / "a.npz")
    written = to_config(NeuralData(tmp_path / "a.npz"))["init_args"]
    assert list(written)[-1] == "seed"


def simulated() -> Recording:
    """Two factors that forget themselves in ten bins, read by ten neurons for 20 s."""
    generator = np.random.default_rng(5)
    factors = np.zeros((1000, 2))
    for bin_, step in enumerate(generator.normal(0, 0.45, (999, 2)), start=1):
        factors[bin_] = 0.9 * factors[bin_ - 1] + step
    log_rates = factors @ generator.normal(0, 0.7, (2, 10)) + np.log(0.7)
    return Recording(generator.poisson(np.exp(log_rates))[None], 0.02)


def test_a_continuous_recording_is_fitted_scored_and_put_together_again(tmp_path):
    recording = simulated()
    run = fit(
        NeuralData(recording),
        partial(LinearDynamics, latent_dim=2),
        EM(max_iterations=2, progress=False),
        run_dir=str(tmp_path / "run"),
    )
    scores = evaluate(run, num_samples=10)
    assert scores["bits_per_spike"] > 0.02
    results = infer(run, num_samples=5)
    order = np.argsort(results.start.values)
    rows = results.rates.values[order]
    joined = np.concatenate([row[np.isfinite(row[:, 0])] for row in rows])
    assert joined.shape == (1000, 10)
    starts = np.round(results.start.values / 0.02).astype(int)
    assert starts.tolist() == results.trial.values.tolist()
    assert np.corrcoef(joined.ravel(), recording.activity[0].ravel())[0, 1] > 0.2


def test_a_continuous_file_is_fitted_and_scored_by_commands(tmp_path, capsys):
    write_npz(simulated(), tmp_path / "a.npz")
    data = ["--data.source.path", str(tmp_path / "a.npz")]
    run = str(tmp_path / "run")
    assert main(["check", *data]) == 0
    assert "windows: {'train'" in capsys.readouterr().out
    model = ["--model", "LinearDynamics", "--model.latent_dim", "2"]
    learner = ["--learner.max_iterations", "1", "--learner.progress", "false"]
    assert main(["fit", *data, *model, *learner, "--run_dir", run]) == 0
    assert main(["evaluate", "--run", run, "--num_samples", "5"]) == 0
    assert "bits_per_spike" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert "window_bins" not in written["data"]["init_args"]


def test_block_in_which_nothing_was_observed_is_refused():
    """Else a fit would have no validation, without a word."""
    activity = np.random.default_rng(0).poisson(1.0, (200, 4)).astype(float)
    activity[100:] = np.nan
    data = NeuralData([activity], bin_width=0.02, test_fraction=0.2, val_fraction=0.0)
    with pytest.raises(InputError, match="test_fraction: nothing was observed in the bins 160 to"):
        data.setup()
