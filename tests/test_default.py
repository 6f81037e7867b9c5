"""What is fitted where no model is named."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import yaml
from pytorch_lightning import Trainer

import seqvae.learning.default as default
from seqvae import GradientLearner, Run, crossvalidate, fit
from seqvae.config import to_config
from seqvae.console.flags import build, with_learners
from seqvae.console.main import main
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.plan import suited
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import write_hdf5
from seqvae.errors import InputError
from seqvae.learning import EM, completed_fit, default_fit, learner_of
from seqvae.models import VAE, NonlinearDynamics
from seqvae.observations import Gaussian, Poisson
from seqvae.verbs.fit import shown

SHAPE = (12, 10, 8)


def counts(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).poisson(0.5, shape).astype(np.float32)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "STEPS", 6)


@pytest.mark.parametrize(
    ("shape", "size", "decay", "dropout"),
    [((12, 10, 6), 6, 0.2, 0.4), ((40, 50, 30), 8, 0.2, 0.4), ((400, 50, 40), 12, 0.087, 0.075)],
)
def test_size_weight_decay_and_dropout_follow_from_the_data(shape, size, decay, dropout) -> None:
    model, _ = default_fit(NeuralData(counts(shape), bin_width=0.02))
    assert model.keywords["latent_dim"] == size
    assert model.keywords["optimizer"].keywords["weight_decay"] == pytest.approx(decay, rel=0.02)
    assert model.keywords["dropout"] == pytest.approx(dropout, rel=0.02)


@pytest.mark.parametrize(
    ("shape", "steps"), [((20, 10, 8), 800), ((200, 15, 8), 800), ((400, 30, 8), 1131)]
)
def test_steps_grow_with_the_fourth_root_of_the_bins(shape, steps, monkeypatch) -> None:
    monkeypatch.undo()
    data = NeuralData(counts(shape), bin_width=0.02, batch_size=16, val_fraction=0.0)
    trainer = default_fit(data).learner.trainer.keywords
    an_epoch = -(-shape[0] // 16)
    assert 0 <= trainer["max_epochs"] * an_epoch - steps < an_epoch


@pytest.mark.parametrize(("shape", "validations"), [((20, 10, 8), 2), ((800, 50, 8), 40)])
def test_few_validation_trials_choose_between_half_of_the_steps_and_all(
    shape, validations, monkeypatch
) -> None:
    monkeypatch.undo()
    trainer = default_fit(NeuralData(counts(shape), bin_width=0.02)).learner.trainer.keywords
    every, epochs = trainer["check_val_every_n_epoch"], trainer["max_epochs"]
    assert epochs % every == 0  # the last weights are among them
    assert epochs / every == pytest.approx(validations, rel=0.1)


def test_real_values_are_read_by_gaussian_noise() -> None:
    data = NeuralData(np.random.default_rng(0).normal(size=SHAPE), bin_width=0.02)
    assert default_fit(data).model.keywords["observation"] is Gaussian
    assert (
        default_fit(NeuralData(counts(), bin_width=0.02)).model.keywords["observation"] is Poisson
    )


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.2), (0.2, 0.0), (0.0, 0.2)])
def test_validation_trials_are_learned_from_where_others_are_left_to_score(val, test) -> None:
    data = NeuralData(counts(), bin_width=0.02, val_fraction=val, test_fraction=test)
    learner = default_fit(data).learner
    assert learner.refit == (val > 0 and test > 0)
    assert (learner.patience is None) == (val == 0)
    assert (learner.select == "val/elbo") == learner.refit


def test_fit_without_a_model_learns_the_default(tmp_path) -> None:
    run = fit(counts(), bin_width=0.02, run_dir=str(tmp_path / "run"))
    assert isinstance(run.model(), NonlinearDynamics)
    assert run.config["learner"]["init_args"]["average_weights"] == default.AVERAGE_WEIGHTS
    again = fit(from_run=run, run_dir=str(tmp_path / "again"))
    assert again.config["model"] == run.config["model"]


def test_the_model_that_is_named_differs_in_what_is_said(tmp_path) -> None:
    named = partial(NonlinearDynamics, latent_dim=2, dropout=0.3)
    run = fit(counts(), named, bin_width=0.02, run_dir=str(tmp_path / "named"))
    arguments = run.config["model"]["init_args"]
    assert (arguments["latent_dim"], arguments["dropout"]) == (2, 0.3)
    assert run.config["learner"]["init_args"]["average_weights"] == default.AVERAGE_WEIGHTS
    again = fit(from_run=run, run_dir=str(tmp_path / "again"))
    assert again.config["model"] == run.config["model"]
    assert completed_fit(partial(VAE, latent_dim=2), NeuralData(counts(), bin_width=0.02)) is None


@pytest.mark.parametrize("val", [0.0, 0.2])
@pytest.mark.parametrize("max_epochs", [1, 2, 5, 41, -1])
def test_epochs_that_are_told_are_kept_and_validated_by_their_share(max_epochs, val) -> None:
    data = NeuralData(counts(), bin_width=0.02, val_fraction=val, test_fraction=0.2)
    trainer = default_fit(data, max_epochs=max_epochs).learner.trainer.keywords
    assert trainer["max_epochs"] == max_epochs
    every = trainer["check_val_every_n_epoch"]
    if val == 0:
        assert every == 1  # Lightning's own; there is nothing to validate
    elif max_epochs > 0:
        assert 1 <= max_epochs // every <= 3
    else:
        assert every == default_fit(data).learner.trainer.keywords["check_val_every_n_epoch"]


def test_a_factory_of_a_learner_changes_what_it_says_of_the_default() -> None:
    data = NeuralData(counts(), bin_width=0.02, test_fraction=0.2)
    told = partial(GradientLearner, trainer=partial(Trainer, max_epochs=7), figures_every=3)
    learner, suits = completed_fit(None, data, told).learner, default_fit(data).learner
    changed = suits.trainer.keywords | {"max_epochs": 7, "check_val_every_n_epoch": 3}
    expected = replace(suits, trainer=partial(Trainer, **changed), figures_every=3)
    assert to_config(learner) == to_config(expected)
    whole = completed_fit(NonlinearDynamics, data, GradientLearner).learner
    assert to_config(whole) == to_config(suits)
    stands = GradientLearner(figures_every=3)
    assert completed_fit(None, data, stands).learner is stands
    assert completed_fit(None, data, EM).learner == EM()
    unnamed = partial(GradientLearner, partial(Trainer, max_epochs=7))  # would be lost
    with pytest.raises(InputError, match="partial of GradientLearner: give its settings by name"):
        completed_fit(None, data, unnamed)
    assert learner_of(partial(GradientLearner, patience=3), VAE).patience == 3
    with pytest.raises(InputError, match=r"must be a Learner, .* got str"):
        learner_of("EM", VAE)


def test_settings_of_a_learner_that_is_not_named_change_the_default(tmp_path, capsys) -> None:
    file, config = tmp_path / "counts.h5", tmp_path / "some.yaml"
    write_hdf5(Recording(counts(), 0.02), file)
    config.write_text("learner: {trainer: {max_epochs: 4}}\n")
    words = ["fit", "--data.source.path", str(file), "--data.test_fraction", "0.2"]
    file_and_flag = ["--config", str(config), "--learner.patience", "7"]
    assert main([*words, *file_and_flag, "--run_dir", str(tmp_path / "run")]) == 0
    told = Run(tmp_path / "run").config["learner"]["init_args"]
    assert told["refit"]
    assert (told["average_weights"], told["patience"]) == (default.AVERAGE_WEIGHTS, 7)
    trainer = told["trainer"]["init_args"]
    assert (trainer["max_epochs"], trainer["check_val_every_n_epoch"]) == (4, 2)

    def printed(*more: str) -> Any:
        capsys.readouterr()
        assert main([*words, *more, "--print_config"]) == 0
        return yaml.safe_load(capsys.readouterr().out)["learner"]

    flags = ["--learner.trainer.max_epochs", "4", "--learner.patience", "7"]
    trainer = {"class_path": "pytorch_lightning.Trainer", "init_args": {"max_epochs": 4}}
    for more in (flags, file_and_flag, [*flags, "--model", "NonlinearDynamics"]):
        assert printed(*more) == {"trainer": trainer, "patience": 7}
    whole = printed(*flags, "--learner", "GradientLearner")
    assert whole["init_args"] == printed(*flags, "--model", "VAE")["init_args"]
    assert whole["class_path"] == "seqvae.learning.GradientLearner"
    assert "refit" not in whole["init_args"]  # it stands as it is


def test_a_cross_validation_completes_learners_that_are_not_named() -> None:
    tree, keys = with_learners({}, {"learners.default.patience": "4"}, False)
    tree["learners"]["default"]["init_args"]["patience"] = 4
    tree |= {"dims": [2], "data": {"source": "Lorenz"}}
    built = build(crossvalidate, tree, trust=False, unnamed=keys)
    data = NeuralData(counts(), bin_width=0.02)
    data.setup()
    division = Division.of(
        data.pool(),
        scheme="fold_in",
        rows="trials",
        trial_folds=2,
        neuron_folds=2,
        gap=None,
        seed=0,
    )
    _, learners = suited(
        {"default": NonlinearDynamics, "vae": VAE},
        {**built["learners"], "vae": partial(GradientLearner, patience=5)},
        data=data,
        division=division,
    )
    assert learners["default"].refit
    assert learners["default"].patience == 4
    assert not learners["vae"].refit
    assert learners["vae"].patience == 5


def test_a_learner_that_does_not_fit_the_default_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="EM cannot learn a NonlinearDynamics"):
        fit(counts(), learner=EM(), bin_width=0.02, run_dir=str(tmp_path / "run"))


def test_command_without_a_model_says_what_was_chosen(tmp_path, capsys, monkeypatch) -> None:
    file, folder = tmp_path / "counts.h5", tmp_path / "run"
    write_hdf5(Recording(counts(), 0.02), file)
    assert main(["fit", "--data.source.path", str(file), "--run_dir", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "no model was named: NonlinearDynamics of 8 latents" in told
    assert "bin width unknown" not in told
    assert "a learner was given" not in told
    assert "a learner was given: all of its settings" in shown(Run(folder), {"learner": EM()})
    unknown = replace(Run(folder).spec, bin_width=None)
    monkeypatch.setattr(Run, "spec", property(lambda _: unknown))
    assert "bin width unknown: time is in bins" in shown(Run(folder), {"model": object()})
    assert Run(folder).config["learner"]["class_path"].endswith("GradientLearner")
