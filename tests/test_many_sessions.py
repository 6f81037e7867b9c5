"""Many sessions cost what their own neurons cost, and are learned from as if all were one array."""

from __future__ import annotations

import tracemalloc
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import seqvae.data.sizes
import seqvae.data.stitching
from seqvae import FLDS, InputError, NeuralData
from seqvae.analysis.diagnosis.checkup import check_up
from seqvae.data import CoordinatedDropout, Recording
from seqvae.data.batching import OrderedBatches, ShuffledBatches
from seqvae.data.pieces import constant_in, pieces
from seqvae.data.session_alignment import aligned
from seqvae.data.session_rows import StitchedActivity, packed
from seqvae.data.sources import Sessions
from seqvae.encoders import InformationMLP, LinearReadIn
from seqvae.learning.validation import validation_scores
from seqvae.observations import Gaussian, Poisson
from tiny import SVAE, tiny_learner

SIZES = {"a": (4, 9), "b": (3, 7), "c": (5, 9), "d": (4, 6)}
SETTINGS: dict[str, Any] = {"heldout": 0.3, "batch_size": 6, "val_fraction": 0.25}


def recording(seed: int, neurons: int, bins: int = 9, trials: int = 12, **beside: Any) -> Recording:
    counts = np.random.default_rng(seed).poisson(1.5, (trials, bins, neurons))
    return Recording(counts, 0.02, condition=np.arange(trials) % 3, **beside)


def sessions() -> Sessions:
    parts = [recording(seed, *size) for seed, size in enumerate(SIZES.values())]
    return Sessions(parts, names=[*SIZES])


@pytest.fixture
def both(monkeypatch) -> tuple[Recording, Recording]:
    """The sessions as one array, and kept one by one."""
    whole = sessions().load()
    monkeypatch.setattr(seqvae.data.stitching, "MOST_WHOLE", 0)
    kept = sessions().load()
    assert isinstance(kept.activity, StitchedActivity)
    assert isinstance(whole.activity, np.ndarray)
    return whole, kept


def assert_same(one: Recording, other: Recording) -> None:
    np.testing.assert_array_equal(one.read(), other.read())
    assert one.lengths.tolist() == other.lengths.tolist()


def test_sessions_that_are_kept_one_by_one_are_read_as_one_array(both) -> None:
    whole, kept = both
    assert_same(whole, kept)
    assert_same(whole.select([30, 2, 40]), kept.select([30, 2, 40]))
    order = np.random.default_rng(0).permutation(16)
    assert_same(whole.arrange(order), kept.arrange(order))
    some = np.array([15, 3, 4])
    np.testing.assert_array_equal(whole.read([40, 1], some), kept.read([40, 1], some))
    assert (kept.activity.seen() == np.isfinite(whole.read()).any(-1)).all()
    missing = kept.activity.neurons(np.array([2, -1]))
    assert np.isnan(np.asarray(missing)[..., 1]).all()
    np.testing.assert_array_equal(np.asarray(missing)[..., 0], whole.read()[..., 2])


def test_a_checksum_tells_any_change_of_what_is_kept(both, monkeypatch) -> None:
    _, kept = both
    assert kept.checksum == sessions().load().checksum
    other = sessions()
    other.sources[2] = Sessions([recording(9, 5)]).sources[0]
    assert kept.checksum != other.load().checksum


@pytest.mark.parametrize("largest", [3, 254, 255, 65534, 65535])
@pytest.mark.parametrize("is_missing", [False, True])
def test_counts_are_packed_without_a_change(largest: int, is_missing: bool) -> None:
    values = np.random.default_rng(0).integers(0, 3, (2, 3, 4)).astype(np.float32)
    values[1, 2, 3] = largest
    if is_missing:
        values[0, 1, 2] = np.nan
    small = packed(values)
    np.testing.assert_array_equal(np.asarray(small), values)
    size = {3: 1, 254: 1, 255: 2, 65534: 2, 65535: 4}[largest]
    assert small._rows.dtype.itemsize == size


@pytest.mark.parametrize("value", [-1.0, 0.5, 1e30])
def test_what_are_no_counts_is_kept_as_it_is(value: float) -> None:
    values = np.ones((2, 3, 4), dtype=np.float32)
    values[0, 0, 0] = value
    np.testing.assert_array_equal(np.asarray(packed(values)), values)


def test_data_are_split_measured_and_aligned_as_one_array_is(both) -> None:
    whole, kept = (NeuralData(one, **SETTINGS) for one in both)
    assert (whole.split == kept.split).all()
    assert whole.spec == kept.spec
    for one, other in zip(whole.train_moments, kept.train_moments, strict=True):
        assert_close(one, other)
    one, other = aligned(whole, 3), aligned(kept, 3)
    np.testing.assert_allclose(one.read_in, other.read_in, atol=1e-12)
    np.testing.assert_allclose(one.path, other.path, atol=1e-12)
    assert kept.at_once("train").tolist() == whole.trials("train").tolist()


def test_pieces_hold_every_trial_and_neuron_that_is_there_once(both, monkeypatch) -> None:
    whole, _ = both
    for one in both:
        found = np.full(whole.shape, np.nan, dtype=np.float32)
        for trials, neurons, activity in pieces(one):
            assert np.isfinite(activity).any((0, 1)).all()
            found[np.ix_(trials, np.arange(activity.shape[1]), neurons)] = activity
        np.testing.assert_array_equal(found, whole.read())
    values = whole.read().copy()
    values[:12, :, 2] = 1.0
    assert constant_in(whole.changed(activity=values)).tolist() == [2]


def test_a_compact_batch_has_the_neurons_of_its_trials_sessions(both) -> None:
    for data in (NeuralData(one, **SETTINGS) for one in both):
        trials = np.array([1, 40, 3])  # of sessions a and d
        dense, compact = data.batch(trials), data.compact(trials)
        assert compact.neurons == (0, 1, 2, 3, 12, 13, 14, 15)
        for name in ("target", "weight"):
            columns = getattr(dense, name)[..., list(compact.neurons)]
            assert torch.equal(getattr(compact, name), columns)
        places = data.spec.heldin_among(compact.neurons)
        for name in ("observed", "observed_mask"):
            assert torch.equal(getattr(compact, name), getattr(dense, name)[..., places])
        for name in ("inputs", "lengths", "trial"):
            assert torch.equal(getattr(compact, name), getattr(dense, name))
        assert not dense.weight[..., list(range(4, 12))].any()
        assert data.compact(trials[:1], among=trials).neurons == compact.neurons
        assert data.compact([0, 12, 24, 36]).neurons is None
    alone = NeuralData(recording(0, 4))
    assert alone.compact([0, 1]).neurons is None


def runs_of(labels: np.ndarray) -> int:
    return 1 + sum(one != other for one, other in pairwise(labels.tolist()))


def test_every_trial_comes_once_an_epoch_in_batches_of_few_sessions() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 20))
    trials = np.arange(100, 700)
    sampler = ShuffledBatches(trials, 32, seed=1, sessions=labels, most_sessions=4)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        batches = [part.own for part in sampler]
        assert len(batches) == len(sampler) == 19
        assert {len(batch) for batch in batches[:-1]} == {32}
        order = np.concatenate(batches)
        assert sorted(order.tolist()) == trials.tolist()
        there = [len(set(labels[batch - 100].tolist())) for batch in batches]
        assert max(there) <= 2 * 4 + 1  # a run may be cut, and has from half to all of 8 trials
        assert runs_of(labels[order - 100]) > 60  # not a whole session at a time
        epochs.append(order)
    assert (epochs[0] == epochs[2]).all()
    assert (epochs[0] != epochs[1]).any()


def test_scored_batches_end_where_another_session_would_come() -> None:
    labels = np.repeat([3, 1, 2, 0, 4], [5, 9, 2, 2, 7])
    sampler = OrderedBatches(np.arange(25), 8, sessions=labels, most_sessions=2)
    batches = [part.own.tolist() for part in sampler]
    assert len(sampler) == len(batches)
    assert [trial for batch in batches for trial in batch] == list(range(25))
    assert [len(batch) for batch in batches] == [8, 8, 8, 1]
    assert max(len(set(labels[batch])) for batch in batches) == 2
    alone = OrderedBatches(np.arange(25), 8, sessions=labels, most_sessions=1)
    assert [len(part.own) for part in alone] == [5, 8, 1, 2, 2, 7]


def test_a_few_sessions_are_mixed_as_ever() -> None:
    data = NeuralData(sessions(), **SETTINGS, sessions_per_batch=4)
    plain = ShuffledBatches(data.trials("train"), 6, seed=0)
    own = [batch.trial.tolist() for batch in data.train_dataloader()]
    assert own == [part.own.tolist() for part in plain]
    with pytest.raises(InputError, match="sessions_per_batch must be at least 1, got 0"):
        NeuralData(sessions(), sessions_per_batch=0)


READERS = {
    "svae": partial(SVAE, read_in=partial(LinearReadIn, output_dim=4), dropout=0.0),
    "svae, all neurons": partial(SVAE, dropout=0.0),
    "flds": partial(
        FLDS,
        latent_dim=2,
        decoder_dims=(4,),
        encoder=partial(InformationMLP, read_in=LinearReadIn, hidden_dims=(5,)),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_learning_from_compact_batches_is_learning_from_all_neurons(
    both, reader: str, monkeypatch
) -> None:
    """A whole fit in double precision, from sessions kept one by one, and from the array."""
    weights = []
    for one, is_compact in zip(both, (False, True), strict=True):
        data = NeuralData(one, **SETTINGS, sessions_per_batch=1, speckled_fraction=0.2)
        if not is_compact:
            monkeypatch.setattr(data, "_part", lambda part, data=data: data.batch(part.own))
        torch.manual_seed(0)
        model = READERS[reader](data.spec)
        tiny_learner(2, trainer={"precision": "64-true"}, select="val/elbo").learn(
            model.double(), data
        )
        weights.append(model.state_dict())
    for name, weight in weights[0].items():
        assert_close(weights[1][name], weight, rtol=1e-6, atol=1e-8, msg=name)


def fitted(data: NeuralData) -> Any:
    torch.manual_seed(0)
    model = READERS["svae"](data.spec)
    model.initialize(data)
    return model.eval()


def test_scores_of_compact_batches_are_those_of_all_neurons(both) -> None:
    model, found = None, []
    for one in both:
        data = NeuralData(one, **SETTINGS, sessions_per_batch=2, eval_batch_size=4)
        model = fitted(data) if model is None else model
        data.setup()
        model._scores, model._noise_seed = [], 3
        for index, batch in enumerate(data.val_dataloader()[0]):
            assert batch.neurons is not None
            model.validation_step(batch, index)
        found.append(model._computed(model._scores[0]))
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    told = validation_scores(model, data)
    assert found[0]["co_bps"] == pytest.approx(told["val/co_bps"], abs=0.2)
    assert found[0].keys() == {name.removeprefix("val/") for name in told}


def test_a_diagnosis_of_sessions_kept_one_by_one_is_that_of_the_array(both) -> None:
    one, other = (NeuralData(each, **SETTINGS) for each in both)
    model = fitted(one)
    first, second = check_up(model, one), check_up(model, other)
    for name, value in first._asdict().items():
        if isinstance(value, float | list):
            assert getattr(second, name) == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_masks_of_compact_batches_are_those_of_all_neurons(both) -> None:
    _, kept = both
    dropout = CoordinatedDropout(0.4)
    data = NeuralData(kept, **SETTINGS, speckled_fraction=0.3, coordinated_dropout=dropout)
    data.setup()
    _, speckled = data.val_dataloader()
    for batch in speckled:
        for row, trial in enumerate(batch.trial.tolist()):
            own = data.compact([trial])
            draws = np.random.default_rng([0, trial]).random((9, data.spec.num_heldin)) < 0.3
            columns = list(own.neurons)
            hidden = np.zeros((9, 16), dtype=bool)
            hidden[:, list(data.spec.heldin)] = draws
            scored = torch.from_numpy(hidden[:, columns]) & (own.weight[0] > 0)
            there = range(16) if batch.neurons is None else batch.neurons
            places = [list(there).index(neuron) for neuron in columns]
            assert torch.equal(batch.weight[row][:, places] > 0, scored)
    batch = data.compact([0, 2])
    data.trainer = type(
        "", (), {"training": True, "fit_loop": type("", (), {"total_batch_idx": 3})}
    )
    masked = data.on_after_batch_transfer(batch, 0)
    hidden = batch.observed_mask & ~masked.observed_mask
    assert 0.2 < hidden.float().mean() < 0.6
    center = data.train_mean[[n for n in data.spec.heldin if n < 4]]
    shown = torch.lerp(center, batch.observed, 1 / (1 - round(0.4 * 65536) / 65536))
    assert_close(masked.observed, shown * masked.observed_mask)


@pytest.mark.parametrize(("value", "kind"), [(-1.0, Poisson), (0.5, Poisson)])
def test_a_wrong_entry_is_named_among_all_neurons(both, value: float, kind: type) -> None:
    values = both[0].read().copy()
    values[30, 2, 9] = value
    split = Recording.changed(both[1], activity=StitchedActivity(
        [packed(values[12 * n : 12 * n + 12][..., own]) for n, own in
         enumerate((slice(0, 4), slice(4, 7), slice(7, 12), slice(12, 16)))]
    ))  # fmt: skip
    with pytest.raises(InputError, match=r"activity\[30, 2, 9\] is"):
        kind(2, 16).check(split)
    Gaussian(2, 16).check(split)


def test_rates_of_many_sessions_are_left_out_with_a_warning(monkeypatch) -> None:
    parts = [recording(n, 3, rates=np.ones((12, 9, 3))) for n in range(2)]
    monkeypatch.setattr(seqvae.data.stitching, "MOST_WHOLE", 0)
    assert Sessions(parts).load().rates is not None
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 0)
    with pytest.warns(match="rates: those of 2 sessions"):
        assert Sessions(parts).load().rates is None


def test_what_learns_from_all_trials_at_once_is_refused_where_they_do_not_fit(
    both, monkeypatch
) -> None:
    data = NeuralData(both[1], **SETTINGS)
    data.setup()
    monkeypatch.setattr(seqvae.data.sizes, "machine_memory", lambda: 1e3)
    with pytest.raises(InputError, match=r"train: 36 trials of 4 .*one by one"):
        data.at_once("train")


def peak_of(number: int) -> int:
    """Bytes that learning from one batch takes at most, of as many sessions."""
    parts = [recording(seed, 8, trials=4, bins=30) for seed in range(number)]
    data = NeuralData(Sessions(parts), heldout=0.25, batch_size=4, sessions_per_batch=1)
    data.setup()
    trials = data.trials("train")[:4]
    tracemalloc.start()
    try:
        data.compact(trials)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_batch_does_not_grow_with_the_number_of_sessions(monkeypatch) -> None:
    monkeypatch.setattr(seqvae.data.stitching, "MOST_WHOLE", 0)
    few, many = peak_of(4), peak_of(80)
    assert many < few + 100_000  # which neurons are of which session; all entries take 7 MB
