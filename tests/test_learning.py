from __future__ import annotations

import csv
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from torch.distributions import Normal
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from seqvae import VAE, InputError, NeuralData, Run, SequentialVAE, fit, infer
from seqvae.compute import noise
from seqvae.compute.noise import step_seed
from seqvae.data import CoordinatedDropout
from seqvae.data.sources import Lorenz
from seqvae.encoders import MLP, DeltaHead, TrialGRU
from seqvae.learning.callbacks import History, KeepBest, StopOnNonFinite
from seqvae.learning.gradient import DEFAULT_TRAINER, GradientLearner
from seqvae.learning.observers import Observers
from seqvae.models.latent_variable import DEFAULT_SCHEDULE
from seqvae.models.scores import Scores
from seqvae.objectives import Objective
from tiny import (
    LORENZ,
    SVAE,
    first_inequality,
    in_memory,
    silent_heldout,
    tiny_data,
    tiny_learner,
    weights,
)

NO_RAMP = Objective(beta_steps=0)
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
# What Lightning says of itself, and its advice about workers, which data in memory do not need.
plain_lightning = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*number of training batches.*",
)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


def history(run):
    with run.files.history.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


class At(Callback):
    """Does something at the start of one training batch, counted from 0."""

    def __init__(self, batch, action):
        self.batch, self.action, self.seen = batch, action, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.batch:
            self.action(pl_module)
        self.seen += 1


def interrupt(model):
    raise KeyboardInterrupt


def poison(model):
    next(model.observation.parameters()).data.fill_(torch.nan)


def with_callback(monkeypatch, callback):
    """Add a callback behind the config's back: a class of a test cannot stand in one."""
    make = GradientLearner._trainer

    def added(self, *args, **settings):
        trainer = make(self, *args, **settings)
        trainer.callbacks.insert(0, callback)
        return trainer

    monkeypatch.setattr(GradientLearner, "_trainer", added)


# --- resumed = uninterrupted, bit for bit --------------------------------------------------------

RICH = {
    "coordinated_dropout": CoordinatedDropout(0.3, pass_rate=0.2),
    "speckled_fraction": 0.2,
    "seed": 3,
}
RICH_SVAE = partial(
    SVAE,
    dropout=0.3,
    objective=Objective(beta_steps=6, recurrent_l2=1.0, recurrent_l2_steps=7),
    schedule=partial(ReduceLROnPlateau, factor=0.5, patience=0, min_lr=1e-4, threshold=1.0),
)
RICH_VAE = partial(VAE, latent_dim=2, factor_dim=4, schedule=partial(StepLR, step_size=2))


def assert_same_weights(one, other):
    ours, theirs = (weights(run.files.weights)["state_dict"] for run in (one, other))
    assert first_inequality(ours, theirs) is None


def assert_same_run(one, other):
    assert first_inequality(weights(one.files.weights), weights(other.files.weights)) is None
    ours, theirs = (weights(run.files.last_checkpoint) for run in (one, other))
    for checkpoint in (ours, theirs):
        for times in ("hparams_name", "loops"):  # loops: compared by what they bring about
            checkpoint.pop(times, None)
    assert first_inequality(ours, theirs) is None
    assert one.files.history.read_text() == other.files.history.read_text()
    assert one.hash == other.hash
    for name, weight in one.model().state_dict().items():
        assert torch.equal(weight, other.model().state_dict()[name]), name


@pytest.mark.parametrize("model", [RICH_SVAE, RICH_VAE], ids=["svae-plateau", "vae-step"])
@pytest.mark.parametrize("select", ["val/elbo", "val/speckled_bps"])
def test_stopped_and_resumed_fit_equals_uninterrupted_one(tmp_path, model, select):
    def go(folder, epochs, **settings):
        learner = tiny_learner(epochs, select=select, patience=3)
        return fit(tiny_data(**RICH), model, learner, run_dir=str(tmp_path / folder), **settings)

    whole = go("whole", 7)
    assert len(history(go("parts", 3))) == 3
    go("parts", 4, resume=True)
    assert_same_run(go("parts", 7, resume=True), whole)


def test_fit_resumed_after_an_interrupt_equals_uninterrupted_one(tmp_path, monkeypatch):
    def go(folder, **settings):
        run_dir = str(tmp_path / folder)
        return fit(tiny_data(**RICH), RICH_SVAE, tiny_learner(5), run_dir=run_dir, **settings)

    whole = go("whole")
    with monkeypatch.context() as patch:
        with_callback(patch, At(7, interrupt))
        with pytest.raises(KeyboardInterrupt):
            go("parts")
    assert_same_run(go("parts", resume=True), whole)


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_fit_resumed_after_a_stop_within_an_epoch_equals_uninterrupted_one(tmp_path, stop):
    def go(folder, max_steps, **settings):
        learner = tiny_learner(-1, trainer={"max_steps": max_steps})
        data = tiny_data(**{**RICH, "batch_size": 4})  # 4 steps an epoch
        return fit(data, RICH_SVAE, learner, run_dir=str(tmp_path / folder), **settings)

    go("parts", stop)
    assert_same_run(go("parts", 12, resume=True), go("whole", 12))


@pytest.mark.parametrize("without", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 3}])
def test_fit_resumed_after_an_epoch_without_validation_equals_uninterrupted_one(tmp_path, without):
    def go(folder, max_steps, **settings):
        learner = tiny_learner(-1, trainer={"max_steps": max_steps, **without})
        return fit(tiny_data(), SVAE, learner, run_dir=str(tmp_path / folder), **settings)

    go("parts", 4)
    assert_same_weights(go("parts", 7, resume=True), go("whole", 7))


def test_resumed_before_the_first_checkpoint_starts_over(tmp_path, monkeypatch):
    def go(folder, **settings):
        return fit(tiny_data(), SVAE, tiny_learner(2), run_dir=str(tmp_path / folder), **settings)

    with monkeypatch.context() as patch:
        with_callback(patch, At(1, interrupt))
        with pytest.raises(KeyboardInterrupt):
            go("parts")
    assert not (tmp_path / "parts" / "last.ckpt").exists()
    assert_same_run(go("parts", resume=True), go("whole"))


def test_resuming_a_finished_or_early_stopped_fit_changes_nothing(tmp_path):
    frozen = partial(SVAE, optimizer=partial(SGD, lr=0.0), objective=NO_RAMP)
    for model, learner in ((SVAE, tiny_learner(2)), (frozen, tiny_learner(9, patience=2))):
        run_dir = str(tmp_path / str(learner.patience))
        once = fit(tiny_data(), model, learner, run_dir=run_dir)
        before = [once.files.history.read_text(), weights(once.files.weights)]
        again = fit(tiny_data(), model, learner, run_dir=run_dir, resume=True)
        after = [again.files.history.read_text(), weights(again.files.weights)]
        assert first_inequality(before, after) is None
        best = weights(again.files.weights)["state_dict"]
        assert first_inequality(dict(again.model().state_dict()), dict(best)) is None


def test_resumed_run_tells_the_learner_it_was_resumed_with(tmp_path):
    fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "r"))
    run = fit(tiny_data(), SVAE, tiny_learner(2), run_dir=str(tmp_path / "r"), resume=True)
    trainer = run.config["learner"]["init_args"]["trainer"]
    assert trainer["init_args"]["max_epochs"] == 2


def test_resumed_with_another_selection_keeps_the_best_by_that(tmp_path):
    def go(epochs, select, **settings):
        data, learner = tiny_data(), tiny_learner(epochs, select=select)
        return fit(data, SVAE, learner, run_dir=str(tmp_path / "r"), **settings)

    go(1, "val/co_bps")
    run = go(3, "val/elbo", resume=True)
    kept = weights(run.files.weights)
    assert kept["score"] == max(row["val/elbo"] for row in history(run)[1:])


# --- seeds ---------------------------------------------------------------------------------------


def test_one_seed_gives_one_fit_and_another_seed_another(tmp_path):
    def go(folder, seed):
        torch.rand(3)  # whatever the caller's randomness
        return fit(
            tiny_data(**RICH), RICH_SVAE, tiny_learner(2), seed=seed, run_dir=str(tmp_path / folder)
        )

    one, same, other = go("a", 1), go("b", 1), go("c", 2)
    assert_same_run(one, same)
    assert one.files.history.read_text() != other.files.history.read_text()
    assert one.hash != other.hash


def test_fit_leaves_the_callers_randomness_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "r"))
    assert torch.equal(torch.rand(3), expected)


@plain_lightning
def test_masks_of_coordinated_dropout_differ_from_step_to_step_and_repeat():
    data = tiny_data(coordinated_dropout=CoordinatedDropout(0.5))
    masks = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            masks.append(batch.observed_mask[:4].clone())

    for _ in range(2):
        Trainer(max_epochs=2, accelerator="cpu", callbacks=[Keep()], **QUIET).fit(
            SVAE(data.spec), data
        )
    assert len(masks) == 8
    assert all(torch.equal(a, b) for a, b in zip(masks[:4], masks[4:], strict=True))
    assert not any(torch.equal(masks[i], masks[j]) for i in range(4) for j in range(i))


@plain_lightning
def test_validation_draws_the_same_whatever_the_batches():
    """Noise is bitwise the same; products over fewer trials may round in another way."""
    scores = []
    for size in (256, 3, 1):
        data = tiny_data(eval_batch_size=size)
        data.setup()
        torch.manual_seed(0)
        model = SVAE(data.spec)
        model.initialize(data)
        torch.manual_seed(size)
        trainer = Trainer(accelerator="cpu", **QUIET)
        (found,) = trainer.validate(model, data, verbose=False)
        scores.append(found)
        predicted = trainer.predict(model, data)
        scores[-1]["predicted"] = float(torch.cat([p["factors"] for p in predicted]).sum())
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], rel=1e-5, abs=1e-5)


@plain_lightning
def test_noise_of_a_step_hangs_on_seed_step_and_trial(monkeypatch):
    """All of it: nothing is left to torch's generator."""
    data = tiny_data(coordinated_dropout=CoordinatedDropout(0.5))
    seen: dict[tuple[int, int], list[torch.Tensor]] = {}

    class Keep(SequentialVAE):
        def forward(self, batch, num_samples=1):
            state = torch.get_rng_state()
            output = super().forward(batch, num_samples)
            assert torch.equal(torch.get_rng_state(), state)
            if self.training:
                white = self.draw(Normal(torch.zeros(len(batch), 3), 1.0), 2)
                step = self.trainer.fit_loop.total_batch_idx
                for row, trial in enumerate(batch.trial.tolist()):
                    seen.setdefault((step, trial), []).append(white[:, row])
            return output

    make = partial(Keep, *SVAE.args, **SVAE.keywords)
    for batch_size in (8, 16):  # 2 steps an epoch, then one
        data.batch_size = batch_size
        torch.manual_seed(0)
        Trainer(max_steps=4, accelerator="cpu", **QUIET).fit(make(data.spec), data)
    steps = {key: draws for key, draws in seen.items() if len(draws) == 2}
    assert len(steps) == 4 * 8
    assert all(torch.equal(one, other) for one, other in steps.values())
    first = torch.stack([draws[0] for draws in seen.values()])
    assert len(first.flatten().unique()) == first.numel()


# --- ramps, early stopping, plateau --------------------------------------------------------------


def test_kl_ramp_counts_steps_whatever_the_batch_size(tmp_path):
    model = partial(SVAE, objective=Objective(beta=0.5, beta_start=2, beta_steps=6))
    rows = []
    for batch_size in (4, 8, 16):
        data = tiny_data(batch_size=batch_size)
        run = fit(data, model, tiny_learner(5), run_dir=str(tmp_path / str(batch_size)))
        rows += history(run)
    assert {row["step"] for row in rows} == {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20}
    for row in rows:
        expected = 0.5 * min(max((row["step"] - 2) / 6, 0), 1)
        assert row["train/beta"] == pytest.approx(expected)


def test_validation_has_beta_one_whatever_the_ramp(tmp_path):
    frozen = partial(SVAE, optimizer=partial(SGD, lr=0.0))
    scores = []
    for i, beta in enumerate((0.0, 1.0, 4.0)):
        model = partial(frozen, objective=Objective(beta=beta, beta_steps=0))
        run = fit(tiny_data(), model, tiny_learner(1), run_dir=str(tmp_path / str(i)))
        scores.append(history(run)[0]["val/elbo"])
    assert len(set(scores)) == 1


def test_early_stopping_waits_for_the_ramps(tmp_path):
    frozen = partial(SVAE, optimizer=partial(SGD, lr=0.0))
    for ramp_end, epochs in ((0, 3), (10, 7)):  # 2 steps an epoch, 1 best validation, patience 2
        model = partial(frozen, objective=Objective(beta_steps=ramp_end))
        learner = tiny_learner(20, patience=2)
        run = fit(tiny_data(), model, learner, run_dir=str(tmp_path / str(ramp_end)))
        assert len(history(run)) == epochs


def test_plateau_waits_for_the_ramps_and_has_a_floor(tmp_path):
    never_better = partial(
        ReduceLROnPlateau, patience=0, min_lr=1e-3, threshold=1e9, threshold_mode="abs", factor=0.5
    )
    model = partial(
        SVAE,
        optimizer=partial(AdamW, lr=4e-3),
        schedule=never_better,
        objective=Objective(beta_steps=6),
    )
    run = fit(tiny_data(), model, tiny_learner(7), run_dir=str(tmp_path / "r"))
    rates = [row["train/learning_rate"] for row in history(run)]
    assert rates == pytest.approx([4e-3, 4e-3, 4e-3, 2e-3, 1e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("loss", [1000.0, -1000.0])
def test_default_plateau_is_one_whatever_the_sign_of_the_score(loss):
    schedule = DEFAULT_SCHEDULE(SGD([torch.zeros(1)], lr=1.0))
    for _ in range(1 + schedule.patience + 1):
        schedule.step(loss)
    assert schedule.get_last_lr() == [0.5]


def test_schedule_by_epochs_is_stepped_once_an_epoch(tmp_path):
    model = partial(
        SVAE, optimizer=partial(SGD, lr=1e-3), schedule=partial(StepLR, step_size=2, gamma=0.1)
    )
    run = fit(tiny_data(batch_size=4), model, tiny_learner(5), run_dir=str(tmp_path / "r"))
    rate = weights(run.files.last_checkpoint)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(1e-5)


# --- selection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "select", ["val/elbo", "val/speckled_bps", "val/speckled_log_likelihood", "val/co_bps"]
)
def test_kept_weights_are_those_with_the_best_selected_score(tmp_path, select):
    data = tiny_data(speckled_fraction=0.3)
    model = partial(SVAE, optimizer=partial(AdamW, lr=0.05))
    run = fit(data, model, tiny_learner(6, select=select), run_dir=str(tmp_path / "r"))
    best = max(history(run), key=lambda row: row[select])
    kept = weights(run.files.weights)
    assert kept["score"] == pytest.approx(best[select])
    assert kept["step"] == best["step"]


@pytest.mark.parametrize(
    ("source", "select", "words"),
    [
        (LORENZ, "val/speckled_bps", "needs hidden entries: set data.speckled_fraction"),
        (Lorenz(num_trials=6, num_val=2, num_heldout=0), "val/co_bps", "needs held-out neurons"),
        (LORENZ, "val/eblo", "no validation score; did you mean 'val/elbo'"),
        (LORENZ, "val/fp_bps", "no validation score; did you mean"),
        (LORENZ, "train/elbo", "no validation score"),
    ],
)
def test_selection_by_a_score_that_will_not_be_there_is_refused(tmp_path, source, select, words):
    with pytest.raises(InputError, match=words):
        fit(tiny_data(source), SVAE, tiny_learner(select=select), run_dir=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_selection_by_a_score_without_spikes_is_refused(tmp_path):
    data = in_memory(silent_heldout(LORENZ.load()))
    with pytest.raises(InputError, match="select='val/co_bps' is nan: the validation trials have"):
        fit(data, SVAE, tiny_learner(select="val/co_bps"), run_dir=str(tmp_path / "r"))


def test_patience_below_one_is_refused(tmp_path):
    with pytest.raises(InputError, match="patience must be at least 1 or null, got 0"):
        fit(tiny_data(), SVAE, tiny_learner(patience=0), run_dir=str(tmp_path / "r"))


@pytest.mark.parametrize(
    ("model", "trainer", "words"),
    [
        (partial(VAE, dropout=1.5), {}, "dropout must be from 0 to below 1"),
        (partial(VAE, factor_dim=-1), {}, "factor_dim must be at least 1, got -1"),
        (partial(VAE, validation_samples=0), {}, "validation_samples must be at least 1"),
        (partial(VAE, encoder=TrialGRU), {}, "answers with one latent a trial"),
        (
            partial(VAE, encoder=partial(MLP, head=DeltaHead)),
            {},
            "needs a posterior with a density",
        ),
        (partial(VAE, optimizer=partial(AdamW, lr=-1)), {}, "Invalid learning rate"),
        (VAE, {"limit_train_batches": 0}, "trainer.limit_train_batches must be above 0, got 0"),
        (VAE, {"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch must be above 0"),
        (VAE, {"strategy": "abacus"}, "trainer: .*abacus"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path, model, trainer, words
):
    with pytest.raises(InputError, match=words):
        fit(tiny_data(), model, tiny_learner(trainer=trainer), run_dir=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_without_validation_trials_the_last_weights_are_kept(tmp_path):
    source = Lorenz(num_trials=16, num_val=0, num_time_bins=10, num_neurons=6, num_heldout=2)
    run = fit(tiny_data(source), SVAE, tiny_learner(3), run_dir=str(tmp_path / "r"))
    kept, last = weights(run.files.weights), weights(run.files.last_checkpoint)
    assert first_inequality(dict(kept["state_dict"]), dict(last["state_dict"])) is None
    assert [row["step"] for row in history(run)] == [2, 4, 6]
    assert "train/elbo" in history(run)[0]


def test_history_has_one_row_per_validation(tmp_path):
    trainer = {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 1}
    run = fit(tiny_data(), SVAE, tiny_learner(5, trainer=trainer), run_dir=str(tmp_path / "r"))
    assert [row["epoch"] for row in history(run)] == [1, 3]


class Terms(Callback):
    """Keeps the terms of each step, its trials, and what callbacks see at the end of an epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append((len(batch), {name: float(value) for name, value in outputs.items()}))

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append((len(self.steps), dict(trainer.callback_metrics)))

    def expected(self, start, stop):
        """The mean over trials of each term of some steps, over the steps that have it."""
        steps = self.steps[start:stop]
        means = {}
        for name in {name for _, terms in steps for name in terms} - {"loss"}:
            pairs = [(size, terms[name]) for size, terms in steps if name in terms]
            total = sum(size for size, _ in pairs)
            means[f"train/{name}"] = sum(size * value for size, value in pairs) / total
        kl = [value for name, value in means.items() if name.startswith("train/kl/")]
        return means | {"train/elbo": means["train/log_likelihood"] - sum(kl)}


TERMS = Objective(beta_steps=4, recurrent_l2=5.0, recurrent_l2_start=4, recurrent_l2_steps=3)


@plain_lightning
@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"max_epochs": 3}, [4, 8, 12]),
        ({"max_epochs": -1, "max_steps": 6}, [4, 6]),
        ({"max_epochs": 2, "limit_train_batches": 3}, [3, 6]),
        ({"max_epochs": 2, "val_check_interval": 2}, [4, 8]),
        ({"max_epochs": 1, "accumulate_grad_batches": 3}, [4]),
    ],
)
def test_terms_of_training_are_means_over_the_trials_of_an_epoch(settings, ends):
    data = tiny_data(batch_size=5)  # 5, 5, 5 and 1 trials
    terms = Terms()
    trainer = Trainer(accelerator="cpu", callbacks=[terms], **QUIET, **settings)
    trainer.fit(SVAE(data.spec, objective=TERMS), data)
    assert [end for end, _ in terms.epochs] == ends
    for start, (end, seen) in zip([0, *ends], terms.epochs, strict=False):
        expected = terms.expected(start, end)
        assert ("train/recurrent_l2" in expected) == (end > 5)  # on its ramp from the sixth step on
        assert {name: float(seen[name]) for name in expected} == pytest.approx(expected, rel=1e-6)


@plain_lightning
def test_terms_of_an_epoch_that_a_validation_cuts_off_are_logged():
    data, terms = tiny_data(batch_size=4), Terms()

    class Stop(Callback):
        def on_validation_end(self, trainer, pl_module):
            trainer.should_stop = True

    settings = {"max_epochs": 3, "val_check_interval": 3, "num_sanity_val_steps": 0} | QUIET
    trainer = Trainer(accelerator="cpu", callbacks=[terms, Stop()], **settings)
    trainer.fit(SVAE(data.spec), data)
    expected = terms.expected(0, 3)
    found = {name: float(trainer.callback_metrics[name]) for name in expected}
    assert len(terms.steps) == 3
    assert found == pytest.approx(expected, rel=1e-6)


@plain_lightning
def test_a_step_of_training_logs_nothing(monkeypatch):
    calls = []
    log = LightningModule.log
    monkeypatch.setattr(
        LightningModule,
        "log",
        lambda self, name, *a, **k: calls.append(name) or log(self, name, *a, **k),
    )
    data = tiny_data(batch_size=2)
    trainer = Trainer(accelerator="cpu", max_epochs=2, limit_val_batches=0, **QUIET)
    trainer.fit(SVAE(data.spec), data)
    names = ["log_likelihood", "kl/initial_condition", "kl/inferred_inputs", "elbo"]
    assert calls == 2 * [f"train/{name}" for name in names]


# --- what goes wrong -----------------------------------------------------------------------------


def test_nan_stops_with_step_and_term_and_keeps_the_best_weights(tmp_path, monkeypatch):
    with_callback(monkeypatch, At(5, poison))
    with pytest.raises(InputError, match="nan or inf at step 6; the best weights so far") as e:
        fit(tiny_data(), SVAE, tiny_learner(9), run_dir=str(tmp_path / "r"))
    assert "training diverged: log_likelihood was" in str(e.value)
    assert str(tmp_path / "r" / "weights.pt") in str(e.value)
    assert "learner.trainer.gradient_clip_val" in str(e.value)
    kept = weights(tmp_path / "r" / "weights.pt")
    assert kept["step"] in (2, 4)
    assert all(torch.isfinite(weight).all() for weight in kept["state_dict"].values())
    last = weights(tmp_path / "r" / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(weight).all() for weight in last.values())


class Clock(Trainer):
    global_step = 0


def test_the_first_step_and_the_term_behind_the_loss_are_named(tmp_path):
    watch, model = StopOnNonFinite(KeepBest(monitor="val/elbo"), tmp_path), LightningModule()
    trainer = Clock(accelerator="cpu", **QUIET)
    good, bad = torch.tensor(1.0), torch.tensor(torch.inf)
    for terms in (
        {"loss": good, "kl/u": good},
        {"loss": bad, "kl/u": good, "recurrent_l2": bad},
        {"loss": bad, "kl/u": bad, "recurrent_l2": good},
    ):
        watch.on_train_batch_end(trainer, model, terms, None, 0)
        trainer.global_step += 1
    with pytest.raises(InputError, match="recurrent_l2 was nan or inf at step 1; no weights had"):
        watch.on_validation_start(trainer, model)
    watch.on_train_batch_end(trainer, model, {"loss": good}, None, 0)
    watch.on_validation_start(trainer, model)


def test_nan_in_the_first_epoch_says_that_nothing_was_saved(tmp_path, monkeypatch):
    with_callback(monkeypatch, At(0, poison))
    with pytest.raises(InputError, match="at step 1; no weights had been saved yet"):
        fit(tiny_data(), SVAE, tiny_learner(9), run_dir=str(tmp_path / "r"))


def test_huge_learning_rate_stops_with_the_sentence(tmp_path):
    model = partial(SVAE, optimizer=partial(SGD, lr=1e30), objective=NO_RAMP)
    with pytest.raises(InputError, match=r"training diverged: \S+ was nan or inf at step \d+;"):
        fit(tiny_data(), model, tiny_learner(9), run_dir=str(tmp_path / "r"))


def test_interrupt_surfaces_and_leaves_a_usable_run(tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    with_callback(monkeypatch, At(3, interrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_data(), SVAE, tiny_learner(9), run_dir=str(tmp_path / "r"))
    assert signal.getsignal(signal.SIGINT) is handler
    assert infer(Run(tmp_path / "r"), num_samples=1).sizes["trial"] == 24
    assert weights(tmp_path / "r" / "last.ckpt")["global_step"] == 2


# --- Lightning's users ---------------------------------------------------------------------------


@plain_lightning
def test_lightning_tests_a_model_on_the_test_trials():
    recording = tiny_data().source.load()
    split = recording.split.copy()
    split[-4:] = "test"
    data = in_memory(replace(recording, split=split))
    model = SVAE(data.spec)
    model.initialize(data)
    (found,) = Trainer(accelerator="cpu", **QUIET).test(model, data, verbose=False)
    assert found["test/heldin_elbo"] > found["test/elbo"]
    scores = Scores(data.spec, model.null_counts, counts=True)
    model.eval()
    with torch.no_grad(), noise.keyed(step_seed(model.seed, -1)):
        for batch in data.batches("test"):
            scores.update(model(batch, model.validation_samples), batch)
    assert found["test/elbo"] == pytest.approx(scores.compute()["elbo"], rel=1e-6)


@plain_lightning
@pytest.mark.parametrize("model", [SVAE, partial(VAE, latent_dim=2)])
def test_plain_trainer_fits_and_validates_without_a_learner(model):
    data = tiny_data(coordinated_dropout=CoordinatedDropout(0.3), speckled_fraction=0.2)
    module = model(data.spec)
    trainer = Trainer(max_epochs=1, accelerator="cpu", **QUIET)
    trainer.fit(module, data)
    assert torch.allclose(module.null_counts, data.train_mean)
    assert {"val/elbo", "val/speckled_bps", "train/elbo"} <= set(trainer.callback_metrics)
    (plain, _) = trainer.validate(module, data, verbose=False)
    assert plain["val/elbo"] < 0
    (predicted,) = trainer.predict(module, data)
    assert predicted["mean"].shape == (24, 10, 6)
    assert predicted["factors"].shape[:2] == (24, 10)


def test_users_callbacks_and_loggers_are_kept(tmp_path):
    checkpoints = ModelCheckpoint(dirpath=tmp_path / "own", monitor="val/elbo", mode="max")
    own = {
        "callbacks": [checkpoints],
        "logger": CSVLogger(save_dir=str(tmp_path / "csv"), name="log", version="0"),
    }
    for epochs, resume in ((2, False), (3, True)):
        learner = tiny_learner(epochs, trainer=own)
        run = fit(tiny_data(), SVAE, learner, run_dir=str(tmp_path / "r"), resume=resume)
    assert checkpoints.best_model_path.startswith(str(tmp_path / "own"))
    assert list((tmp_path / "own").glob("*.ckpt"))
    logged = (tmp_path / "csv" / "log" / "0" / "metrics.csv").read_text()
    assert "val/elbo" in logged
    assert "factor_dim" in (tmp_path / "csv" / "log" / "0" / "hparams.yaml").read_text()
    assert run.files.last_checkpoint.exists()


def test_users_callback_sees_every_batch(tmp_path, monkeypatch):
    counting = At(-1, poison)
    with_callback(monkeypatch, counting)
    fit(tiny_data(), SVAE, tiny_learner(3), run_dir=str(tmp_path / "r"))
    assert counting.seen == 6


def built_trainer(learner: GradientLearner, data: NeuralData) -> Trainer:
    best = KeepBest(monitor=learner.select)
    model, history = SVAE(data.spec), History()
    return learner._trainer(model, data, Observers(()), best, {}, None, history=history)


class LoudTrainer(Trainer):
    """A user's own kind of Trainer."""


def test_users_kind_of_trainer_and_progress_bar_are_taken(tmp_path):
    bar = TQDMProgressBar()
    learner = GradientLearner(trainer=partial(LoudTrainer, accelerator="cpu", callbacks=bar))
    data = tiny_data()
    trainer = built_trainer(learner, data)
    assert isinstance(trainer, LoudTrainer)
    assert trainer.progress_bar_callback is bar
    assert trainer.max_epochs == DEFAULT_TRAINER.keywords["max_epochs"]


def test_apple_gpu_is_not_taken_by_default(tmp_path, monkeypatch):
    data = tiny_data()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    learner = GradientLearner(progress=False)
    trainer = built_trainer(learner, data)
    assert isinstance(trainer.accelerator, CPUAccelerator)


def test_progress_bar_tells_epochs_and_score(tmp_path, capsys):
    learner = tiny_learner(2, progress=True)
    fit(tiny_data(), SVAE, learner, run_dir=str(tmp_path / "r"))
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "elbo=" in shown


def test_fit_without_progress_bar_prints_nothing(tmp_path, capsys):
    fit(in_memory(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "r"))
    assert capsys.readouterr() == ("", "")
