"""Validation trials choose for how long to learn, and are then learned from as well."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from pytorch_lightning.strategies import SingleDeviceStrategy
from scipy.special import gammaln
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CyclicLR, ReduceLROnPlateau

from seqvae import FLDS, Ensemble, InputError, Run, crossvalidate, ensemble, evaluate, fit
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.compute import noise
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.job import Cell, Job
from seqvae.crossvalidation.learned import learn
from seqvae.data import CoordinatedDropout
from seqvae.distributions.kinds import Counts
from seqvae.learning.refit import SecondPass, check_going_on
from seqvae.learning.trainers import build_trainer
from seqvae.objectives import Objective
from seqvae.plotting import learning_curves
from seqvae.runs import begin
from seqvae.storage.files import RunFiles
from tiny import LORENZ, SVAE, first_inequality, in_memory, tiny_data, tiny_learner, weights

RICH = {"coordinated_dropout": CoordinatedDropout(0.3, pass_rate=0.2), "seed": 3}
FALLING = partial(ReduceLROnPlateau, factor=0.5, patience=0, min_lr=1e-4, threshold=10.0)
RICH_SVAE = partial(
    SVAE,
    dropout=0.3,
    objective=Objective(beta_steps=6, recurrent_l2=1.0, recurrent_l2_steps=7),
    schedule=FALLING,
)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


def refitting(max_epochs=5, **settings):
    return tiny_learner(max_epochs, refit=True, **settings)


def with_test_trials(num_test=4):
    """The tiny recording, the first training trials of which are test trials."""
    recording = LORENZ.load()
    split = recording.split.copy()
    split[np.flatnonzero(split == "train")[:num_test]] = "test"
    return replace(recording, split=split)


def passes(run):
    first = [row for row in run.history if "refit" not in row]
    return first, [row for row in run.history if "refit" in row]


def state(run):
    return {name: weight.clone() for name, weight in run.model().state_dict().items()}


class AtRates(Callback):
    """Sets the learning rate of each step."""

    def __init__(self, rates):
        self.rates = rates

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = self.rates[trainer.global_step]


def by_hand(model, data, *, rates, seed=0, init=None):
    """A model that is trained on training and validation trials, a step for each rate."""
    recording = data.recording
    split = np.where(recording.split == "val", "train", recording.split)
    union = in_memory(replace(recording, split=split), **RICH)
    union.setup()
    union.seed = seed
    with noise.apart(seed):
        begun = begin(partial(model, schedule=None), union, seed=seed)
        if init is not None:
            begun.begin_from(init)
        trainer = Trainer(
            accelerator="cpu", max_epochs=-1, max_steps=len(rates), gradient_clip_val=200.0,
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[AtRates(rates)],
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice
            trainer.fit(begun, datamodule=union)
    return begun


def rates_of(run, *, batches=(2, 3)):
    """The rate of each step of the second pass: validation ends an epoch, and may lower it."""
    first, second = passes(run)
    after = [row["train/learning_rate"] for row in first]
    rates = [4e-3, *after[:-1]]
    return [rates[step // batches[1]] for step in range(int(second[-1]["step"]))]


# --- what it learns ------------------------------------------------------------------------------


def test_refit_is_training_on_all_trials_for_the_chosen_passes_at_the_same_rates():
    data = in_memory(with_test_trials(), **RICH)
    run = fit(data, RICH_SVAE, refitting(6), in_memory=True)
    rates = rates_of(run)
    assert len(set(rates)) > 1
    hand = by_hand(RICH_SVAE, data, rates=rates)
    assert first_inequality(dict(hand.state_dict()), state(run)) is None
    assert run.model().refitted


def test_refit_takes_the_passes_of_the_best_validation_score():
    model = partial(SVAE, objective=Objective(beta_steps=0))
    run = fit(in_memory(), model, refitting(6), in_memory=True)
    first, second = passes(run)
    best = max(first, key=lambda row: row["val/heldin_elbo"])
    assert second[-1]["step"] == best["step"] * 3 / 2  # as many passes, of three batches each
    assert [row["step"] for row in first] == [2, 4, 6, 8, 10, 12]
    alone = fit(in_memory(), model, tiny_learner(6), in_memory=True)
    assert first == alone.history


def test_null_rates_are_those_of_all_trials_that_were_learned_from(tmp_path):
    recording = with_test_trials()
    learned = recording.activity[recording.split != "test"]
    run = fit(in_memory(recording), SVAE, refitting(2), run_dir=str(tmp_path / "r"))
    expected = learned.mean((0, 1))
    np.testing.assert_allclose(run.model().null_counts, expected, rtol=1e-5)
    np.testing.assert_allclose(run.train_moments.mean, expected, rtol=1e-5)
    assert run.provenance["data"]["num_trials"] == {"train": 12, "val": 8, "test": 4}
    assert Run(run.folder).model().refitted


def test_a_fit_without_refit_is_what_it_was(tmp_path):
    run = fit(tiny_data(), SVAE, tiny_learner(2), run_dir=str(tmp_path / "r"))
    assert "refit" not in run.config["learner"]["init_args"]
    assert set(weights(run.files.weights)) == {"format", "step", "score", "state_dict"}
    assert not run.files.refit_checkpoint.exists()
    assert not Run(run.folder).model().refitted


def test_second_pass_begins_where_a_fine_tuned_first_one_began():
    data = in_memory(with_test_trials(), **RICH)
    former = fit(in_memory(), RICH_SVAE, tiny_learner(3), in_memory=True)
    run = fit(data, RICH_SVAE, refitting(4), in_memory=True, init_from=former)
    hand = by_hand(RICH_SVAE, data, rates=rates_of(run), init=former.model())
    assert first_inequality(dict(hand.state_dict()), state(run)) is None


def test_frozen_parts_stay_as_they_began():
    learner = refitting(2, freeze=("observation",))
    run = fit(in_memory(), SVAE, learner, in_memory=True)
    union = in_memory().merged()
    with noise.apart(0):
        begun = begin(SVAE, union)
    assert torch.equal(run.model().observation.readout.weight, begun.observation.readout.weight)
    assert torch.equal(run.model().observation.readout.bias, begun.observation.readout.bias)


@pytest.mark.parametrize("dtype", ["64-true", "32-true"])
def test_refit_learns_in_the_precision_that_is_asked_for(dtype):
    learner = refitting(2, trainer={"precision": dtype})
    model = fit(in_memory(), partial(FLDS, latent_dim=2, decoder_dims=(4,)), learner,
                in_memory=True).model()  # fmt: skip
    assert model.null_counts.dtype == (torch.float64 if dtype == "64-true" else torch.float32)


class NotingSGD(SGD):
    """Notes learning rate and momentum of each step."""

    notes: ClassVar[list[tuple[float, float]]] = []

    def step(self, closure=None):
        loss = super().step(closure)
        self.notes.append(tuple(self.param_groups[0][name] for name in ("lr", "momentum")))
        return loss


def test_momentum_that_a_schedule_moves_is_replayed_too():
    schedule = partial(CyclicLR, base_lr=1e-4, max_lr=1e-3, step_size_up=2, base_momentum=0.5)
    data = in_memory()
    data.setup()
    model = SVAE(data.spec, optimizer=partial(NotingSGD, lr=1e-4, momentum=0.9), schedule=schedule)
    model.initialize(data)
    NotingSGD.notes.clear()
    refitting(4).learn(model, data)
    first, second = NotingSGD.notes[:8], NotingSGD.notes[8:]
    assert second
    assert second == [first[step * 2 // 3] for step in range(len(second))]  # 2 batches, then 3
    assert len(set(second)) > 1


# --- what it does not see ------------------------------------------------------------------------


def test_values_of_test_trials_change_nothing():
    recording = with_test_trials()
    activity = recording.activity.copy()
    activity[recording.split == "test"] += 3
    other = replace(recording, activity=activity)
    one, two = (
        fit(in_memory(one), SVAE, refitting(3), in_memory=True) for one in (recording, other)
    )
    assert one.model().refitted
    assert first_inequality(state(one), state(two)) is None


def test_values_of_validation_trials_are_learned_from():
    recording = with_test_trials()
    activity = recording.activity.copy()
    activity[recording.split == "val"] += 3
    runs = [fit(in_memory(one), SVAE, refitting(3), in_memory=True)
            for one in (recording, replace(recording, activity=activity))]  # fmt: skip
    assert not torch.equal(*(run.model().null_counts for run in runs))


def cell_of(recording, tmp_path):
    division = Division.of(
        recording, scheme="fold_in", rows="auto", trial_folds=2, neuron_folds=2, gap=None, seed=0
    )
    settings = {"val_fraction": 0.3, "batch_size": 8, "eval_batch_size": 8,
                "coordinated_dropout": None, "speckled_fraction": 0.0}  # fmt: skip
    job = Job(Cell("svae", 2, 0, 0, 0), {}, SVAE, refitting(3), division, Counts(), 2, 0,
              settings, tmp_path)  # fmt: skip
    return job, division


def test_entries_that_a_cell_holds_out_change_nothing(tmp_path):
    recording = LORENZ.load()
    job, division = cell_of(recording, tmp_path)
    heldout = division.trial_fold == 0
    activity = recording.activity.copy()
    activity[heldout] = activity[heldout][:, ::-1]
    other, changed = cell_of(replace(recording, activity=activity), tmp_path)
    truths = [parts.part(0, 0).truth for parts in (division, changed)]
    assert not np.array_equal(*truths, equal_nan=True)
    one, two = (learn(cell, division.heldin(0)) for cell in (job, other))
    assert one.refitted
    assert first_inequality(dict(one.state_dict()), dict(two.state_dict())) is None


def test_crossvalidation_learns_again_in_each_cell(tmp_path):
    scores = []
    for learner in (tiny_learner(3), refitting(3)):
        result = crossvalidate(
            tiny_data(val_fraction=0.3), {"svae": SVAE}, {"svae": learner}, dims=[2],
            trial_folds=2, neuron_folds=2, num_samples=2, progress=False,
            out_dir=str(tmp_path / str(learner.refit)),
        )  # fmt: skip
        scores.append(result.scores.query("model == 'svae'").score.to_numpy())
    assert np.isfinite(scores).all()
    assert not np.isclose(*scores).any()


# --- interrupted ---------------------------------------------------------------------------------


def interrupted(monkeypatch, *, batch, is_second):
    """An interrupt at the start of a batch of the first or of the second pass."""

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            second = any(isinstance(callback, SecondPass) for callback in trainer.callbacks)
            if second == is_second and trainer.fit_loop.total_batch_idx == batch:
                raise KeyboardInterrupt

    def build(factory, callbacks, **settings):
        return build_trainer(factory, [*callbacks, Interrupt()], **settings)

    monkeypatch.setattr("seqvae.learning.gradient.build_trainer", build)


def kept(run):
    """What ``weights.pt`` holds, without a score that is no number."""
    content = weights(run.files.weights)
    assert np.isnan(content.pop("score"))
    return content


def assert_same_run(one, other):
    assert first_inequality(kept(one), kept(other)) is None
    assert one.files.history.read_text() == other.files.history.read_text()
    assert one.hash == other.hash
    assert first_inequality(one.provenance["data"], other.provenance["data"]) is None
    assert first_inequality(state(one), state(other)) is None


def resumable(folder, epochs=6, **settings):
    """A run that is saved after each epoch."""
    learner = refitting(epochs, save_seconds=0.0)
    return fit(tiny_data(LORENZ, **RICH), RICH_SVAE, learner, run_dir=str(folder), **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        run = resumable(tmp_path_factory.mktemp("whole") / "run")
    assert passes(run)[1][-1]["step"] > 8
    return run


@pytest.mark.parametrize(("batch", "is_second"), [(5, False), (1, True), (7, True)])
def test_interrupted_and_resumed_refit_equals_uninterrupted_one(
    tmp_path, monkeypatch, whole, batch, is_second
):
    with monkeypatch.context() as patch:
        interrupted(patch, batch=batch, is_second=is_second)
        with pytest.raises(KeyboardInterrupt):
            resumable(tmp_path)
    assert RunFiles(tmp_path).refit_checkpoint.exists() == (is_second and batch > 2)
    with pytest.warns(UserWarning, match="is to be refitted, and this was not done yet"):
        assert not Run(tmp_path).model().refitted
    assert_same_run(resumable(tmp_path, resume=True), whole)


def test_resuming_a_refitted_run_changes_nothing_and_a_damaged_checkpoint_costs_a_repetition(
    tmp_path, whole
):
    shutil.copytree(whole.folder, tmp_path / "r")
    assert_same_run(resumable(tmp_path / "r", resume=True), whole)
    RunFiles(tmp_path / "r").refit_checkpoint.write_bytes(b"torn")
    assert_same_run(resumable(tmp_path / "r", resume=True), whole)


def test_a_refitted_run_learns_on_and_is_refitted_anew(tmp_path, whole):
    short = passes(resumable(tmp_path, 2))
    longer = resumable(tmp_path, 6, resume=True)
    assert passes(longer)[1][-1]["step"] > short[1][-1]["step"]
    assert_same_run(longer, whole)


def test_interrupted_refit_of_a_fine_tuned_model_begins_where_the_first_pass_began(
    tmp_path, monkeypatch
):
    former = fit(in_memory(), RICH_SVAE, tiny_learner(2), run_dir=str(tmp_path / "former"))

    whole = resumable(tmp_path / "whole", 4, init_from=former)
    with monkeypatch.context() as patch:
        interrupted(patch, batch=1, is_second=True)
        with pytest.raises(KeyboardInterrupt):
            resumable(tmp_path / "parts", 4, init_from=former)
    assert_same_run(resumable(tmp_path / "parts", 4, resume=True), whole)


def test_resuming_with_fewer_epochs_than_there_are_is_refused(tmp_path):
    content = {"epoch": 59, "callbacks": {}}
    go_on = partial(check_going_on, False, tmp_path / "last.ckpt", content)
    with pytest.raises(InputError, match=r"max_epochs: .* has learned for 60 epochs, more than 5"):
        go_on(max_epochs=5)
    for enough in (None, -1, 59, 60):
        go_on(max_epochs=enough)


def test_resuming_cannot_change_whether_a_run_is_refitted(tmp_path):
    def go(folder, learner, **settings):
        return fit(tiny_data(), SVAE, learner, run_dir=str(tmp_path / folder), **settings)

    go("plain", tiny_learner(2))
    with pytest.raises(InputError, match=r"refit: .*plain was begun without it.*leave refit out"):
        go("plain", refitting(2), resume=True)
    go("refitted", refitting(2))
    with pytest.raises(InputError, match=r"refit: .*was refitted, and its former weights are gone"):
        go("refitted", tiny_learner(2), resume=True)


# --- what is told of it --------------------------------------------------------------------------


def test_evaluate_scores_test_trials_by_what_all_others_teach(tmp_path):
    recording = with_test_trials()
    run = fit(in_memory(recording), SVAE, refitting(2), run_dir=str(tmp_path / "r"))
    scores = evaluate(run, num_samples=2)
    assert scores["split"] == "test"
    learned, test = (recording.activity[recording.split == "test"] if is_test else
                     recording.activity[recording.split != "test"]
                     for is_test in (False, True))  # fmt: skip
    mean = np.clip(learned.mean((0, 1)), 1e-9, None)
    expected = (test * np.log(mean) - mean - gammaln(test + 1)).mean()
    found = scores["baselines"]["mean_rate"]
    assert found["log_likelihood"] == pytest.approx(expected, rel=1e-5)
    assert found["bits_per_spike"] == pytest.approx(0.0, abs=1e-6)
    assert found["co_bps"] == pytest.approx(0.0, abs=1e-6)
    assert "smoothing_glm" in scores["baselines"]


def test_evaluate_does_not_take_learned_trials_for_unseen_ones(tmp_path):
    run = fit(in_memory(), SVAE, refitting(2), run_dir=str(tmp_path / "r"))
    with pytest.raises(InputError, match="learned from its validation trials, too, and there are"):
        evaluate(run, num_samples=2)
    with pytest.warns(UserWarning, match="these scores are of training trials"):
        scores = evaluate(run, split="val", num_samples=2)
    assert scores["split"] == "val"
    assert "behavior_r2" not in scores


def test_other_data_are_evaluated_as_ever(tmp_path):
    run = fit(in_memory(), SVAE, refitting(2), run_dir=str(tmp_path / "r"))
    other = replace(LORENZ.load(), activity=LORENZ.load().activity[:, ::-1].copy(), split=None)
    scores = evaluate(run, in_memory(other), num_samples=2)
    assert scores["split"] == "all"
    assert scores["baselines_learned_on"] == "the training trials of the run"


def test_smoothing_chosen_by_validation_is_learned_again_from_all_trials():
    generator = np.random.default_rng(0)
    drive = np.sin(np.linspace(0, 6, 30))[:, None] * generator.normal(size=8)
    train, val = (generator.poisson(np.exp(drive), (n, 30, 8)).astype(float) for n in (12, 6))
    sizes = {"heldin": np.arange(6), "num_encoded_bins": 30, "kind": Counts()}
    chosen, again = (SmoothingGLM.fit(train, val, **sizes, refit=refit) for refit in (False, True))
    both = np.concatenate([train, val])
    np.testing.assert_allclose(again.mean, both.mean((0, 1)), rtol=1e-6)
    assert (again.width, again.prior_bins) == (chosen.width, chosen.prior_bins)
    assert again.readout.projection.shape == chosen.readout.projection.shape
    assert again.readout.penalty == chosen.readout.penalty
    np.testing.assert_array_equal(again.readout.high, both[..., 6:].max((0, 1)))


def test_second_pass_raises_no_alarm_and_gets_no_advice_of_missing_validation(tmp_path, caplog):
    """Its bound begins where the first pass began, far below where that one ended."""
    learner = refitting(15, patience=None)
    model = partial(SVAE, optimizer=partial(AdamW, lr=2e-2), objective=Objective(beta_steps=0))
    run = fit(in_memory(), model, learner, run_dir=str(tmp_path / "r"))
    first, second = passes(run)
    assert second[0]["train/elbo"] < first[-1]["train/elbo"]
    assert "learning rate too high" not in caplog.text
    assert "overfitting" not in caplog.text
    curves = learning_curves(run.history)
    for axes in curves.axes:
        for line in axes.lines:
            assert (np.diff(line.get_xdata()) > 0).all()


def test_history_says_which_rows_are_of_the_second_pass(tmp_path):
    run = fit(tiny_data(), SVAE, refitting(3), run_dir=str(tmp_path / "r"))
    first, second = passes(run)
    assert all("val/heldin_elbo" in row and "refit" not in row for row in first)
    assert all(row["refit"] == 1 and not any("val/" in name for name in row) for row in second)
    assert [row["step"] for row in second][-1] == weights(run.files.weights)["step"]
    assert second[0]["train/learning_rate"] == first[0]["train/learning_rate"]


def test_a_run_in_memory_is_saved_as_refitted(tmp_path):
    run = fit(in_memory(), SVAE, refitting(2), in_memory=True).save(tmp_path / "r")
    again = Run(run.folder)
    assert again.model().refitted
    np.testing.assert_allclose(again.train_moments.mean, again.model().null_counts, rtol=1e-6)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learner", "data", "message"),
    [
        (refitting(2), {"val_fraction": 0.0}, "there are no validation trials, whose"),
        (refitting(2, trainer={"limit_val_batches": 0}), {}, "with trainer.limit_val_batches 0"),
        (refitting(2, trainer={"strategy": SingleDeviceStrategy("cpu")}), {},
         "a SingleDeviceStrategy serves one pass"),
        (refitting(2, trainer={"callbacks": GradientAccumulationScheduler({0: 2})}), {},
         "whether a GradientAccumulationScheduler can serve a second pass is not known"),
    ],
)  # fmt: skip
def test_what_cannot_be_refitted_is_refused_in_a_sentence(learner, data, message):
    data = in_memory(replace(LORENZ.load(), split=None), **data) if data else tiny_data()
    data.setup()
    with pytest.raises(InputError, match=message):
        learner.check(SVAE(data.spec), data)


def test_warm_starts_from_refitted_cells_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"warm_starts: models\.svae is refitted"):
        crossvalidate(
            tiny_data(val_fraction=0.3), {"svae": SVAE}, {"svae": refitting(2)}, dims=[2, 3],
            warm_starts=True, trial_folds=2, neuron_folds=2, out_dir=str(tmp_path),
        )  # fmt: skip


def test_callbacks_that_watch_the_first_pass_are_left_out_of_the_second(tmp_path):
    watching = [ModelCheckpoint(dirpath=str(tmp_path), monitor="val/elbo", mode="max"),
                EarlyStopping("val/elbo", mode="max", patience=50)]  # fmt: skip
    data = in_memory()
    data.setup()
    model = SVAE(data.spec)
    model.initialize(data)
    trainer = {"callbacks": watching, "enable_checkpointing": True}
    refitting(2, trainer=trainer).learn(model, data)
    assert len(list(tmp_path.iterdir())) == 1
    assert model.refitted


def test_an_ensemble_with_a_refitted_member_knows_what_that_one_has_learned(tmp_path):
    plain = fit(in_memory(), SVAE, tiny_learner(2), in_memory=True)
    refitted = fit(in_memory(), SVAE, refitting(2), in_memory=True)
    together = Ensemble([plain, refitted])
    saved = together.save(tmp_path / "e")
    for run in (together, Run(saved.folder)):
        assert run.model().refitted
        assert torch.equal(run.model().null_counts, refitted.model().null_counts)
        np.testing.assert_array_equal(run.train_moments.mean, refitted.train_moments.mean)
    with pytest.raises(InputError, match="learned from its validation trials, too, and there are"):
        evaluate(together, num_samples=2)
    with pytest.raises(InputError, match="a member was refitted, so that it has learned from them"):
        ensemble([plain, refitted], weights="stacking", run_dir=str(tmp_path / "s"))
