"""A run that goes on with another optimiser or schedule."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ExponentialLR

from seqvae import VAE, InputError, fit
from tiny import first_inequality, tiny_data, tiny_learner, weights

SMALL = partial(VAE, latent_dim=2, factor_dim=4, validation_samples=1)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


def model(lr=1e-2, weight_decay=0.1, schedule=partial(ExponentialLR, gamma=0.5), **adam):
    optimizer = partial(AdamW, lr=lr, weight_decay=weight_decay, **adam)
    return partial(SMALL, optimizer=optimizer, schedule=schedule)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        folder = tmp_path_factory.mktemp("runs") / "a"
        return fit(tiny_data(), model(), tiny_learner(2), run_dir=str(folder)).folder


@pytest.fixture
def folder(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "a")


def resumed(folder, renewed, max_epochs=3):
    fit(tiny_data(), renewed, tiny_learner(max_epochs), run_dir=str(folder), resume=True)
    return weights(folder / "last.ckpt")


def group(checkpoint, index=0):
    return checkpoint["optimizer_states"][0]["param_groups"][index]


def test_resumed_with_equal_settings_a_run_equals_an_uninterrupted_one(folder, tmp_path):
    whole = fit(tiny_data(), model(), tiny_learner(3), run_dir=str(tmp_path / "b"))
    ours, theirs = resumed(folder, model()), weights(whole.folder / "last.ckpt")
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert first_inequality(ours[part], theirs[part]) is None


def test_a_learning_rate_of_zero_leaves_the_parameters_as_they_were(folder):
    before = weights(folder / "last.ckpt")
    after = resumed(folder, model(lr=0.0, weight_decay=0.0))
    assert after["global_step"] > before["global_step"]
    assert first_inequality(after["state_dict"], before["state_dict"]) is None


def test_a_new_learning_rate_begins_the_schedule_anew_and_keeps_the_moments(folder):
    before = weights(folder / "last.ckpt")
    assert group(before)["lr"] == pytest.approx(1e-2 / 4)
    after = resumed(folder, model(lr=4e-3))
    assert group(after)["lr"] == pytest.approx(4e-3 / 2)
    assert group(after)["weight_decay"] == 0.1
    (moments, *_), (former, *_) = (
        each["optimizer_states"][0]["state"].values() for each in (after, before)
    )
    assert moments["step"] == former["step"] + 2


def test_a_new_weight_decay_leaves_learning_rate_and_schedule_alone(folder):
    after = resumed(folder, model(weight_decay=0.3, betas=(0.8, 0.9)))
    assert group(after)["lr"] == pytest.approx(1e-2 / 8)
    assert group(after)["weight_decay"] == 0.3
    assert list(group(after)["betas"]) == [0.8, 0.9]
    assert group(after, 1)["weight_decay"] == 0.0  # biases never decay


@pytest.mark.parametrize("schedule", [None, partial(ExponentialLR, gamma=0.1)])
def test_a_new_schedule_begins_at_the_learning_rate_of_the_settings(folder, schedule):
    after = resumed(folder, model(schedule=schedule))
    assert group(after)["lr"] == pytest.approx(1e-2 if schedule is None else 1e-3)


def test_another_class_of_optimiser_begins_without_moments(folder):
    after = resumed(folder, partial(SMALL, optimizer=partial(SGD, lr=0.0), schedule=None))
    assert group(after)["lr"] == 0.0
    assert "betas" not in group(after)


def test_what_was_renewed_is_noted_and_stays_in_force_when_the_fit_is_killed_at_once(folder):
    former = (folder / "last.ckpt").read_bytes()
    first = resumed(folder, model(lr=4e-3))
    (folder / "last.ckpt").write_bytes(former)  # as if it had been killed before it saved
    run = fit(tiny_data(), model(lr=4e-3), tiny_learner(3), run_dir=str(folder), resume=True)
    second = weights(folder / "last.ckpt")
    assert first_inequality(second["state_dict"], first["state_dict"]) is None
    note = run.provenance["resumed"][0]["changed"]
    assert "model.init_args.optimizer.init_args.lr was 0.01 and is now 0.004" in note
    assert run.config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 4e-3


def test_a_checkpoint_that_does_not_tell_its_settings_goes_on_with_those_only(folder):
    content = weights(folder / "last.ckpt")
    del content["settings"]
    torch.save(content, folder / "last.ckpt")
    with pytest.raises(InputError, match=r"lr was 0.01 and is now 0.5; .* an earlier version"):
        resumed(folder, model(lr=0.5))
    assert group(resumed(folder, model()))["lr"] == pytest.approx(1e-2 / 8)
    resumed(folder, model(lr=0.5), max_epochs=4)


def test_another_size_is_refused(folder):
    with pytest.raises(InputError, match=r"model.init_args.latent_dim was 2 and is now 3"):
        resumed(folder, partial(model(), latent_dim=3))
