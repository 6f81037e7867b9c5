"""Advice names settings that the fit has, and that can still move: every model, every finding."""

from __future__ import annotations

import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from seqvae import (
    EM,
    FLDS,
    PCA,
    VAE,
    ClosedForm,
    FactorAnalysis,
    LinearDynamics,
    NeuralData,
    SwitchingEM,
    SwitchingLinearDynamics,
    evaluate,
    fit,
)
from seqvae.analysis.diagnosis import (
    Checkup,
    Cure,
    Finding,
    FitConfig,
    Gain,
    OddChannels,
    Settings,
    Spread,
    Use,
    diagnose,
    idle,
)
from seqvae.analysis.diagnosis.activity import odd_channels
from seqvae.config import from_config, override, to_config
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import Counts, Real
from seqvae.errors import InputError
from seqvae.learning import Learner
from seqvae.models import LatentVariableModel
from seqvae.objectives import Objective
from seqvae.observations import Gaussian
from seqvae.runs import ModelFactory
from seqvae.verbs.advice import MASKS, sections
from tiny import SVAE, tiny_data, tiny_learner

FAMILIES = {
    "SequentialVAE": (SVAE, tiny_learner(2)),
    "VAE": (VAE, tiny_learner(2)),
    "FLDS": (FLDS, tiny_learner(2)),
    "LinearDynamics": (LinearDynamics, EM(max_iterations=40)),
    "SwitchingLinearDynamics": (SwitchingLinearDynamics, SwitchingEM(max_iterations=40)),
    "FactorAnalysis": (FactorAnalysis, ClosedForm()),
    "PCA": (PCA, ClosedForm()),
}
GOOD, BAD, NONE = Gain(0.05, 0.001, 60.0), Gain(-0.05, 0.001, -60.0), Gain(0.0, 0.001, 0.0)


def family(name: str) -> tuple[FitConfig, Settings, Checkup]:
    """The config of a fit, and what a healthy one leaves behind."""
    model, learner = FAMILIES[name]
    data = tiny_data()
    data.setup()
    tree = to_config({"seed": 0, "data": data, "model": model, "learner": learner})
    unread = frozenset(f"data.{word}" for word in MASKS - learner.reads)
    config = FitConfig(tree, data.spec, sections, unread)
    cls = model.func if isinstance(model, partial) else model
    settings = Settings(
        by_gradient=issubclass(cls, LatentVariableModel),
        ramp_ends={"beta_steps": 100},
        min_rate=config.number("model.schedule.min_lr"),
        max_iterations=config.number("learner.max_iterations"),
        max_epochs=config.number("learner.trainer.max_epochs"),
        max_steps=config.number("learner.trainer.max_steps"),
        num_trials=100,
    )
    checkup = Checkup(
        null=Spread(-900.0, 40.0), train=GOOD, other=GOOD, latents={"latents": Use(9.0, 4, 4)},
        heldin_bits=0.3, heldout_bits=0.3, dispersion=[1.0] * 4, dispersion_error=[0.05] * 4,
        observation="Poisson", kind=Counts(), are_counts=True, mean=0.3, zeros=0.8, least=0.0,
        radius=None, num_time_bins=50, num_trials=40, dimension=cls.dimension_argument,
    )  # fmt: skip
    return config, settings, checkup


def rows(values, *, step: int = 20, **columns) -> list[dict[str, float]]:
    history = []
    for number, value in enumerate(values):
        row = {"epoch": float(number), "step": float(step * (number + 1)), **columns}
        history.append(row | {"val/heldin_elbo": value, "train/log_likelihood": -860.0})
    return history


def planted(settings: Settings, checkup: Checkup) -> list[Finding]:
    """Every finding that there is, for a kind of learning."""
    flat, rising = rows(np.full(60, -700.0)), rows(np.linspace(-790.0, -700.0, 60))
    bounds = [{"step": i + 1.0, "bound": -84e3 - 3e3 * 0.97**i} for i in range(40)]
    exploded = [{**row, "train/log_likelihood": -5e4} for row in flat]
    gaussian = {"kind": Real(), "observation": "Gaussian", "dispersion": []}
    gain = {"gain": {"smoothing_glm": {"mean": -0.1, "standard_error": 0.01}}}
    slow = [{**row, "train/learning_rate": 0.0} for row in rising]
    states = {"states": Use(3.0, 2, 2), "latents": Use(9.0, 4, 4)}
    two = {"initial_condition": Use(0.0, 0, 4), "inferred_inputs": Use(9.0, 1, 1)}
    fits = [
        (exploded, {}), (rising, {}), (slow, {}), (bounds, {}), (rows([-800.0], step=10), {}),
        (flat, {"latents": {"latents": Use(0.0, 0, 4)}}), (flat, {"latents": two}),
        (flat, {"other": Gain(0.01, 0.001, 9.0)}), (flat, {"heldout_bits": -0.2}),
        (flat, {"train": BAD, "other": BAD}), (flat, {"dispersion": [1.5] * 4}),
        (flat, gaussian), (flat, {**gaussian, "are_counts": False}),
        (flat, {**gaussian, "are_counts": False, "least": -1.0}), (flat, {"radius": 1.1}),
        (flat, {"latents": states, "occupancy": {"states": [0.999, 0.001]}}),
        (flat, {"channels": OddChannels(["1"], ["2"], ["3"], [("4", "5")])}),
        (flat, {"heldin_bits": -0.3, "heldout_bits": -0.3}),
    ]  # fmt: skip
    findings = idle(rows(np.full(60, -700.0), **{"val/kl/latent": 0.0}), settings)
    for history, changes in fits:
        findings += diagnose(history, checkup._replace(**changes), settings)
    return findings + diagnose(flat, checkup, settings, gain)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_setting_that_is_named_exists_and_its_change_makes_a_valid_config(name):
    config, settings, checkup = family(name)
    findings = planted(settings, checkup)
    kinds = {finding.name for finding in findings}
    assert len(kinds) >= (16 if settings.by_gradient else 11), kinds
    for finding in findings:
        fitting = finding.fitting(config)
        assert fitting.setting, finding.name
        for setting in re.findall(r"(?:model|learner|data)\.[a-z_.]*[a-z_]", str(fitting)):
            config.value(setting)
        for cure in fitting.cures:
            value = cure.changed(cure.former)
            tree = override(sections, config.tree, (cure.setting, value))
            from_config(tree["model"], ModelFactory)(config.spec)
            from_config(tree["learner"], Learner)
            from_config(tree["data"], NeuralData)


def cured(name: str, finding: str) -> list[str]:
    config, settings, checkup = family(name)
    found = [one for one in planted(settings, checkup) if one.name == finding]
    return [cure.setting for one in found for cure in one.fitting(config).cures]


def test_cures_are_those_of_the_model_and_its_learner():
    assert set(cured("SwitchingLinearDynamics", "unused_states")) == {"model.num_states"}
    assert set(cured("LinearDynamics", "overfitting")) == {"learner.ridge", "model.latent_dim"}
    assert set(cured("PCA", "worse_than_mean_rate")) == {"model.latent_dim"}
    assert "data.coordinated_dropout.rate" in cured("VAE", "overfitting")
    assert cured("LinearDynamics", "overdispersed_counts") == []
    assert cured("FLDS", "overdispersed_counts") == ["model.observation"]
    assert "model.inferred_input_dim" not in cured("VAE", "posterior_collapse")
    assert "model.inferred_input_dim" in cured("SequentialVAE", "posterior_collapse")


def test_values_at_their_limits_are_not_advised():
    model = partial(
        SVAE, dropout=0.5, observation=Gaussian,
        objective=Objective(beta=0.0, beta_steps=0, kl_target=3.0),
    )  # fmt: skip
    tree = to_config({"data": tiny_data(), "model": model, "learner": tiny_learner(2)})
    data = tiny_data()
    data.setup()
    config = FitConfig(tree, data.spec, sections)

    def told(verb: str, setting: str, limit: float | int | None = None, start=None) -> str | None:
        cure = Cure(verb, setting, limit, start).fitting(config)
        return None if cure is None else str(cure)

    assert told("raise", "model.dropout", 0.5) is None
    assert told("lower", "model.objective.beta", 0) is None
    assert told("lower", "model.objective.beta_steps", 0) is None
    assert told("raise", "model.objective.beta_steps", None, 300) == (
        "set model.objective.beta_steps, e.g. to 300"
    )
    assert told("raise", "model.objective.free_bits", None, 0.1) is None  # excludes kl_target
    assert told("raise", "model.objective.kl_target") == "raise model.objective.kl_target (3)"
    assert told("raise", "learner.trainer.max_steps") is None
    assert told("lower", "model.latent_dim", 1) is None
    assert told("set", "model.observation", None, "Poisson") is not None
    assert told("set", "model.encoder", None, "MLP") is not None
    assert told("set", "model.observation", None, "Nothing") is None


def test_settings_of_a_class_that_may_not_be_imported_are_not_known():
    config, *_ = family("VAE")
    tree = {**config.tree, "model": {"class_path": "elsewhere.Model", "init_args": {}}}
    with pytest.raises(InputError, match=r"no class of seqvae"):
        FitConfig(tree, config.spec, sections).value("model.latent_dim")


def test_one_trial_raises_no_alarm(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    counts = np.random.default_rng(0).poisson(0.5, (1, 20, 5)).astype(float)
    model = partial(SVAE, objective=Objective(beta_steps=0))
    run = fit(NeuralData(Arrays(counts, 0.02), val_fraction=0.0), model, tiny_learner(3),
              in_memory=True)  # fmt: skip
    with pytest.warns(UserWarning, match="of the trials that the run was learned from"):
        metrics = evaluate(run, num_samples=3)
    assert metrics["advice"] == {}


def test_odd_channels_are_named():
    generator = np.random.default_rng(0)
    activity = generator.normal(size=(12, 10, 6))
    activity[..., 1], activity[..., 3] = 7.0, activity[..., 2]
    activity[..., 5] += 1e7
    data = NeuralData(Arrays(activity, 0.02), val_fraction=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading tells of some
        data.setup()
    assert odd_channels(data, Real()) == OddChannels([], ["1"], ["5"], [("2", "3")])
    counts = generator.poisson(1.0, (12, 10, 3)).astype(float)
    counts[..., 0] = 0
    data = NeuralData(Arrays(counts, 0.02), val_fraction=0.0)
    with pytest.warns(UserWarning, match="silent"):
        data.setup()
    assert odd_channels(data, Counts()) == OddChannels(["0"], [], [], [])


def test_a_transition_beside_a_network_is_not_taken_for_the_dynamics():
    from seqvae.analysis.diagnosis.checkup import _radius
    from seqvae.models import NonlinearDynamics
    from toy import toy_spec

    linear, bent = (
        NonlinearDynamics(toy_spec(), latent_dim=2, dynamics_dims=dims, em_iterations=0)
        for dims in ((), (8,))
    )
    assert _radius(linear) == pytest.approx(
        float(torch.linalg.eigvals(linear.transition.detach().double()).abs().max())
    )
    assert _radius(bent) is None
