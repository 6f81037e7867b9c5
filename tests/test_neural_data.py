from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqvae.data import CoordinatedDropout, NeuralData, Recording
from seqvae.data.sources import Arrays, Lorenz
from seqvae.errors import InputError
from seqvae.types import Batch


@pytest.fixture
def data(toy_recording) -> NeuralData:
    return NeuralData(Arrays(toy_recording), heldout=[0, 4], forecast_bins=3, batch_size=8)


def trials_of(loader) -> list[int]:
    return torch.cat([batch.trial for batch in loader]).tolist()


def assert_same(one: Batch, other: Batch) -> None:
    assert one.neurons == other.neurons
    for name in (field.name for field in fields(Batch) if field.name != "neurons"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_observed_holds_no_heldout_neuron_and_no_forecast_bin(data, toy_recording):
    batch = data.batch([3, 1])
    activity = torch.tensor(toy_recording.activity[[3, 1]])
    assert torch.equal(batch.target, activity)
    assert torch.equal(batch.observed, activity[:, :9, [1, 2, 3, 5]])
    assert torch.equal(batch.inputs, torch.tensor(toy_recording.inputs[[3, 1]]))
    assert batch.lengths.tolist() == [12, 12]
    assert batch.trial.tolist() == [3, 1]
    assert batch.observed_mask.all()
    assert (batch.weight == 1).all()


def test_trials_of_a_batch_are_chosen_by_index_slice_list_or_mask(data):
    whole = data.batch(data.trials("all"))
    chosen = data.batch([2, 3, 4])
    mask = torch.zeros(24, dtype=torch.bool)
    mask[2:5] = True
    for index in (
        slice(2, 5),
        [2, 3, 4],
        torch.tensor([2, 3, 4]),
        torch.tensor([-22, 3, -20]),
        mask,
    ):
        assert_same(whole[index], chosen)
    with pytest.raises(IndexError):
        whole[torch.tensor([24])]
    moved = chosen.to(torch.float64)
    assert (moved.target.dtype, moved.observed_mask.dtype) == (torch.float64, torch.bool)


def test_spec_tells_the_facts(data):
    spec = data.spec
    assert (spec.num_neurons, spec.num_inputs, spec.num_time_bins) == (6, 2, 12)
    assert (spec.heldin, spec.heldout) == ((1, 2, 3, 5), (0, 4))
    assert (spec.num_encoded_bins, spec.num_forecast_bins, spec.bin_width) == (9, 3, 0.02)


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=2, max_size=8),
    forecast_bins=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_padding_and_missing_entries_have_no_weight(lengths, forecast_bins, seed):
    generator = np.random.default_rng(seed)
    lengths[0] = 8
    trials = [generator.normal(size=(length, 3)) for length in lengths]
    for trial in trials:
        trial[:-1][generator.random((len(trial) - 1, 3)) < 0.2] = np.nan
    data = NeuralData(Arrays(trials, 0.01), heldout=[1], forecast_bins=forecast_bins)
    batch = data.batch(data.trials("all"))
    assert batch.lengths.tolist() == lengths
    assert (batch.weight[~batch.time_mask] == 0).all()
    assert not batch.observed_mask[~batch.time_mask[:, : 8 - forecast_bins]].any()
    assert torch.isfinite(batch.target).all()
    assert (batch.target[batch.weight == 0] == 0).all()
    assert torch.equal(batch.observed_mask, batch.weight[:, : 8 - forecast_bins, [0, 2]] == 1)
    for row, trial in zip(batch.target, trials, strict=True):
        expected = torch.tensor(np.nan_to_num(trial), dtype=torch.float32)
        assert torch.equal(row[: len(trial)], expected)


def test_the_file_says_what_is_held_out_unless_told_otherwise(toy_recording):
    stated = replace(
        toy_recording,
        heldin=np.array([0, 2, 5]),
        num_encoded_bins=10,
        split=np.repeat(["train", "val", "test"], [12, 8, 4]),
    )
    data = NeuralData(Arrays(stated), val_fraction=0.5)
    assert data.spec.heldin == (0, 2, 5)
    assert data.spec.num_encoded_bins == 10
    assert data.trials("val").tolist() == list(range(12, 20))
    data = NeuralData(Arrays(stated), heldout=[1], forecast_bins=0)
    assert data.spec.heldin == (0, 2, 3, 4, 5)
    assert data.spec.num_forecast_bins == 0


def test_splits_share_no_trial_and_leave_none_out(data):
    parts = [data.trials(split).tolist() for split in ("train", "val")]
    assert sorted(parts[0] + parts[1]) == data.trials("all").tolist() == list(range(24))


def test_batches_keep_the_order_and_the_uneven_rest(data):
    sizes = [len(batch) for batch in data.batches("all", 10)]
    assert sizes == [10, 10, 4]
    assert trials_of(data.batches([5, 3, 9], 2)) == [5, 3, 9]
    assert trials_of(data.batches("train")) == data.trials("train").tolist()


def test_training_order_hangs_on_seed_and_epoch_alone(toy_recording):
    def order(seed: int, epoch: int) -> list[int]:
        loader = NeuralData(Arrays(toy_recording), batch_size=5, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        assert len(loader) == len(list(loader))
        return trials_of(loader)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == sorted(order(1, 4))


def test_loaders_give_whole_splits(toy_recording):
    data = NeuralData(
        Arrays(toy_recording), test_fraction=0.25, speckled_fraction=0.3, eval_batch_size=2
    )
    plain, speckled = data.val_dataloader()
    assert trials_of(plain) == trials_of(speckled) == data.trials("val").tolist()
    assert trials_of(data.test_dataloader()) == data.trials("test").tolist()
    assert trials_of(data.predict_dataloader()) == list(range(24))
    for one, other in zip(speckled, data.val_dataloader()[1], strict=True):
        assert_same(one, other)
    assert 0 < next(iter(speckled)).weight.sum() < next(iter(plain)).weight.sum()


def test_without_validation_trials_there_is_no_validation_loader(toy_recording):
    assert NeuralData(Arrays(toy_recording), val_fraction=0.0).val_dataloader() == []


def test_training_moments_are_those_of_the_observed_training_entries():
    activity = np.random.default_rng(0).normal(3, 2, (20, 7, 4))
    activity[::3, 2:, 1] = np.nan
    data = NeuralData(Arrays(activity, 0.01), heldout=[0], forecast_bins=2)
    train = activity[data.trials("train")]
    np.testing.assert_allclose(data.train_mean, np.nanmean(train, (0, 1)), rtol=1e-5)
    np.testing.assert_allclose(data.train_std, np.nanstd(train, (0, 1)), rtol=1e-4)


def test_changing_other_trials_changes_no_training_mean(toy_recording):
    data = NeuralData(Arrays(toy_recording))
    activity = toy_recording.activity.copy()
    activity[data.trials("val")] += 5
    other = NeuralData(Arrays(replace(toy_recording, activity=activity)))
    assert torch.equal(data.train_mean, other.train_mean)


def test_the_source_is_read_once(toy_recording, monkeypatch):
    reads = []
    monkeypatch.setattr(Arrays, "load", lambda _: reads.append(1) or toy_recording)
    data = NeuralData(Arrays(toy_recording))
    data.setup("fit")
    data.setup("test")
    assert data.spec == data.spec
    assert len(reads) == 1


def test_every_argument_is_an_attribute(toy_recording):
    given = {
        "val_fraction": 0.3,
        "test_fraction": 0.1,
        "split_seed": 1,
        "heldout": 0.5,
        "heldout_seed": 2,
        "forecast_bins": 3,
        "batch_size": 4,
        "eval_batch_size": 5,
        "coordinated_dropout": CoordinatedDropout(0.3),
        "speckled_fraction": 0.1,
        "seed": 6,
    }
    data = NeuralData(Arrays(toy_recording), **given)
    assert {name: getattr(data, name) for name in given} == given


class Probe(pl.LightningModule):
    """Notes which batches the trainer hands over, learns nothing of use."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[Batch]] = {"train": [], "val": []}

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen["train"].append(batch)
        return (self.weight * batch.target.mean()).sum()

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        self.seen["val"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning 2.6 on torch 2.13
def test_lightning_drops_entries_in_training_and_in_training_only(toy_recording, tmp_path):
    data = NeuralData(
        Arrays(toy_recording), coordinated_dropout=CoordinatedDropout(0.5), batch_size=10
    )
    probe = Probe()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(probe, data)
    assert [len(batch) for batch in probe.seen["train"]] == [10, 9, 10, 9]
    for batch in probe.seen["train"]:
        assert set(batch.weight.unique().tolist()) == {0.0, 2.0}
        assert 0.3 < batch.observed_mask.float().mean() < 0.7
    for batch in probe.seen["val"]:
        assert_same(batch, data.batch(data.trials("val")))
    epochs = [torch.cat([b.trial for b in probe.seen["train"][i : i + 2]]) for i in (0, 2)]
    assert not torch.equal(*epochs)


def test_masks_hang_on_step_and_trial_and_not_on_the_batch(toy_recording):
    data = NeuralData(Arrays(toy_recording), coordinated_dropout=CoordinatedDropout(0.5, 0.3))

    def masked(trials: list[int], step: int = 0):
        loop = SimpleNamespace(total_batch_idx=step)
        data.trainer = SimpleNamespace(training=True, fit_loop=loop)
        return data.on_after_batch_transfer(data.batch(trials), 0)

    torch.manual_seed(0)
    whole = masked([3, 1, 7, 4])
    torch.manual_seed(1)
    part = masked([4, 1])
    for name in ("observed", "observed_mask", "weight"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[[3, 1]])
    assert not torch.equal(whole.observed_mask[0], whole.observed_mask[1])
    assert not torch.equal(masked([4, 1], step=1).observed_mask, part.observed_mask)


def test_hiding_entries_knows_no_offset_of_the_data():
    activity = np.random.default_rng(0).normal(size=(20, 8, 4))
    shown = []
    for offset in (0.0, 100.0):
        data = NeuralData(
            Arrays(activity + offset, 0.02),
            coordinated_dropout=CoordinatedDropout(0.5),
            speckled_fraction=0.5,
        )
        data.trainer = SimpleNamespace(training=True, fit_loop=SimpleNamespace(total_batch_idx=0))
        dropped = data.on_after_batch_transfer(data.batch([3, 4]), 0)
        speckled = next(iter(data.val_dataloader()[1]))
        shown.append([b.observed[b.observed_mask] - offset for b in (dropped, speckled)])
    torch.testing.assert_close(shown[0], shown[1], rtol=0, atol=1e-4)


def bare(recording: Recording, **changes) -> NeuralData:
    return NeuralData(Arrays(replace(recording, **changes)))


def test_adapting_takes_the_heldin_neurons_of_the_model(data, toy_recording):
    other = bare(toy_recording)
    other = other.adapted(data.spec)
    assert other.spec == data.spec
    assert_same(other.batch([1, 2]), data.batch([1, 2]))


def test_adapting_leaves_the_data_as_they_are(data, toy_recording):
    other = bare(toy_recording)
    before = other.spec
    assert other.adapted(data.spec).spec == data.spec != before
    assert other.spec == before


def test_adapting_embeds_a_file_that_lacks_heldout_neurons(data, toy_recording):
    heldin = list(data.spec.heldin)
    other = bare(
        toy_recording,
        activity=toy_recording.activity[:, :, heldin],
        rates=toy_recording.rates[:, :, heldin],
        neuron_ids=None,
        bin_width=None,
    )
    with pytest.warns(UserWarning, match="taken for those that are held in, in their order"):
        other = other.adapted(data.spec)
    assert other.spec == data.spec
    batch, expected = other.batch([1, 2]), data.batch([1, 2])
    assert torch.equal(batch.observed, expected.observed)
    assert (batch.weight[:, :, [0, 4]] == 0).all()
    assert torch.equal(batch.weight[:, :, heldin], expected.weight[:, :, heldin])
    np.testing.assert_array_equal(
        other.recording.rates[:, :, heldin], toy_recording.rates[:, :, heldin]
    )
    assert other.recording.num_neurons == 6


def test_adapting_adds_the_forecast_bins_that_a_file_lacks(data, toy_recording):
    short = {
        name: getattr(toy_recording, name)[:, :9]
        for name in ("activity", "inputs", "behavior", "rates")
    }
    short["activity"] = short["activity"].copy()
    short["activity"][2, 5:] = np.nan
    other = bare(toy_recording, **short)
    other = other.adapted(data.spec)
    assert other.spec == data.spec
    batch = other.batch([1, 2])
    assert batch.lengths.tolist() == [12, 5]
    assert (batch.weight[:, 9:] == 0).all()
    assert torch.equal(batch.observed[0], data.batch([1]).observed[0])
    assert torch.isfinite(batch.inputs).all()


def test_adapting_to_a_model_without_forecast_encodes_what_the_file_has(toy_recording):
    spec = NeuralData(Arrays(toy_recording)).spec
    short = {
        name: getattr(toy_recording, name)[:, :7]
        for name in ("activity", "inputs", "behavior", "rates")
    }
    other = bare(toy_recording, **short)
    other = other.adapted(spec)
    assert (other.spec.num_time_bins, other.spec.num_encoded_bins) == (7, 7)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bin_width": 0.01}, "bin_width is 0.01 s, but the model was trained with 0.02 s"),
        ({"inputs": None}, "inputs: the data have 0, but the model was trained with 2"),
        (
            {"activity": np.ones((24, 12, 5)) * np.arange(5), "rates": None, "neuron_ids": None},
            "activity has 5 neurons, but the model was trained with 6, 4 of them held in",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*neurons are silent")
def test_data_that_do_not_fit_the_model_are_refused(data, toy_recording, changes, sentence):
    other = bare(toy_recording, **changes)
    with pytest.raises(InputError, match=sentence):
        other.adapted(data.spec)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"forecast_bins": 12}, "forecast_bins must be from 0 to 11"),
        ({"forecast_bins": -1}, "forecast_bins must be from 0 to 11"),
        ({"val_fraction": 1.5}, "val_fraction must be"),
        ({"heldout": [9]}, "heldout names neuron 9"),
        ({"heldout": [0, 1, 2, 3, 4, 5]}, "holds out all 6 neurons"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"speckled_fraction": 1.0}, "speckled_fraction must be from 0 to below 1"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(toy_recording, options, sentence):
    with pytest.raises(InputError, match=sentence):
        NeuralData(Arrays(toy_recording), **options).setup()


def test_unknown_and_empty_splits_are_refused(data):
    with pytest.raises(InputError, match="split 'valid' is unknown; did you mean 'val'"):
        data.trials("valid")
    with pytest.raises(InputError, match="split 'test' has no trials; the data hold: train, val"):
        data.trials("test")


def test_the_true_rates_of_the_simulation_score_well_on_heldout_neurons():
    data = NeuralData(Lorenz())
    trials, neurons = data.trials("val"), list(data.spec.heldout)
    target = data.batch(trials).target[:, :, neurons].double()
    mean = torch.tensor(data.recording.rates[trials][:, :, neurons]).double() * data.spec.bin_width
    null = data.train_mean[neurons].double()
    gain = (torch.xlogy(target, mean) - mean - torch.xlogy(target, null) + null).sum()
    assert 0.2 < gain / target.sum() / np.log(2) < 0.5
    assert len(neurons) == 13
