"""The average of the weights over the steps of training, which is scored and kept."""

from __future__ import annotations

import warnings
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch.optim import AdamW

from seqvae import VAE, InputError, fit
from seqvae.compute import noise
from seqvae.objectives import Objective
from tiny import first_inequality, in_memory, tiny_data, tiny_learner, weights

TINY = partial(VAE, latent_dim=2, factor_dim=3, objective=Objective(beta_steps=0))
DECAY = 0.7


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


class NotingAdamW(AdamW):
    """Notes the weights after each step."""

    notes: ClassVar[list[list[torch.Tensor]]] = []

    def step(self, closure=None):
        loss = super().step(closure)
        parts = [part for group in self.param_groups for part in group["params"]]
        self.notes.append([part.detach().clone() for part in parts])
        return loss


def learned(**settings):
    """A model learned in double precision, and its weights after each step of each pass."""
    data = in_memory()
    data.setup()
    NotingAdamW.notes.clear()
    with noise.apart(0):
        model = TINY(data.spec, optimizer=partial(NotingAdamW, lr=0.05))
        model.initialize(data)
        learner = tiny_learner(4, trainer={"precision": "64-true"}, **settings)
        learner.learn(model, data)
    return model, list(NotingAdamW.notes)


def parts_of(model):
    return [part for group in model.parameter_groups() for part in group["params"]]


def averaged(steps, decay):
    """The average by its definition: step i of t counts decay^(t - i)."""
    shares = np.array([decay ** (len(steps) - 1 - i) for i in range(len(steps))])
    shares /= shares.sum()
    return [sum(s * part for s, part in zip(shares, parts, strict=True))
            for parts in zip(*steps, strict=True)]  # fmt: skip


def test_what_is_kept_is_the_average_at_the_best_step():
    model, steps = learned(average_weights=DECAY)
    candidates = [averaged(steps[:t], DECAY) for t in (2, 4, 6, 8)]
    gaps = [
        max(float((a - b.detach()).abs().max()) for a, b in zip(c, parts_of(model), strict=True))
        for c in candidates
    ]
    assert min(gaps) < 1e-12
    assert sorted(gaps)[1] > 1e-4


def test_averaging_does_not_change_what_is_learned():
    _, plain = learned()
    _, beside = learned(average_weights=DECAY)
    assert first_inequality(plain, beside) is None


def test_validation_scores_the_average():
    run = fit(in_memory(), TINY, tiny_learner(3, average_weights=DECAY), in_memory=True)
    best = max(row["val/heldin_elbo"] for row in run.history)
    model, data = run.model(), run.data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        (scores,) = trainer.validate(model, data, verbose=False)
    assert scores["val/heldin_elbo"] == pytest.approx(best, rel=1e-6)


def test_refit_ends_with_the_average_of_the_second_pass():
    model, steps = learned(average_weights=DECAY, refit=True)
    second = averaged(steps[8:], DECAY)
    for expected, part in zip(second, parts_of(model), strict=True):
        torch.testing.assert_close(part.detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("trainer", [{}, {"val_check_interval": 0.5}])
def test_resumed_average_equals_uninterrupted_one(tmp_path, trainer):
    def go(folder, epochs, **settings):
        learner = tiny_learner(epochs, average_weights=DECAY, save_seconds=0.0, trainer=trainer)
        return fit(tiny_data(), TINY, learner, run_dir=str(tmp_path / folder), **settings)

    whole = go("whole", 5)
    go("parts", 2)
    parts = go("parts", 5, resume=True)
    for name in ("weights", "last_checkpoint"):
        one, other = (weights(getattr(run.files, name)) for run in (whole, parts))
        for content in (one, other):
            content.pop("loops", None)
        assert first_inequality(one, other) is None
    assert whole.files.history.read_text() == parts.files.history.read_text()


def test_default_leaves_configs_as_they_were_and_averages_nothing(tmp_path):
    run = fit(tiny_data(), TINY, tiny_learner(1), run_dir=str(tmp_path))
    assert "average_weights" not in run.config["learner"]["init_args"]
    assert not any(
        "WeightAverage" in name for name in weights(run.files.last_checkpoint)["callbacks"]
    )


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    data = in_memory()
    data.setup()
    with pytest.raises(InputError, match="average_weights must be at least 0 and below 1"):
        tiny_learner(average_weights=decay).check(TINY(data.spec), data)
