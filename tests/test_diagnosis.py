from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from seqvae import EM, VAE, LinearDynamics, evaluate, fit
from seqvae.analysis.diagnosis import (
    Checkup,
    Finding,
    FitConfig,
    Gain,
    OddChannels,
    Settings,
    Spread,
    Use,
    diagnose,
    idle,
    learning_rate,
    training,
)
from seqvae.analysis.diagnosis.checkup import (
    _excess,
    _ratio,
    check_up,
    findings,
    null_score,
)
from seqvae.distributions.kinds import Counts, Real
from seqvae.storage.history import read_history
from seqvae.types import Batch
from seqvae.verbs.advice import sections
from seqvae.verbs.evaluate import score_table as table
from tiny import SVAE, tiny_data, tiny_learner

TRAINED = Settings(by_gradient=True, ramp_ends={"beta_steps": 100}, min_rate=1e-4, num_trials=100)
LEARNED = Settings(by_gradient=False, max_iterations=40, num_trials=100)
HEALTHY = Checkup(
    null=Spread(-900.0, 40.0),
    train=Gain(0.05, 0.001, 60.0),
    other=Gain(0.045, 0.002, 54.0),
    latents={"initial_condition": Use(1.8, 10, 16), "inferred_inputs": Use(14.0, 1, 1)},
    heldin_bits=0.36,
    heldout_bits=0.4,
    dispersion=[0.85, 0.95, 1.0, 1.05, 1.15],
    dispersion_error=[0.06] * 5,
    observation="Poisson",
    kind=Counts(),
    are_counts=True,
    mean=0.25,
    zeros=0.8,
    least=0.0,
    radius=None,
    num_time_bins=50,
    num_trials=40,
    dimension="latent_dim",
)


def history(validation, *, step=5, **columns):
    """A row every other epoch; columns hold a number, or one for each row."""
    rows = []
    for number, value in enumerate(validation):
        row = {"epoch": 2.0 * number + 1, "step": 2.0 * step * (number + 1)}
        row |= {"val/heldin_elbo": value, "train/log_likelihood": -860.0, "train/elbo": -870.0}
        row |= {"train/learning_rate": 4e-3, "train/gradient_norm": 50.0, "train/clipped": 0.0}
        for name, given in columns.items():
            row[name.replace("__", "/")] = given if np.isscalar(given) else given[number]
        rows.append(row)
    return rows


def approach(start, end, number=60, within=8.0):
    """Scores that rise and level off."""
    return end - (end - start) * np.exp(-np.arange(number) / within)


FLAT = history(approach(-790.0, -700.0))


def names(rows=FLAT, settings=TRAINED, scores=None, **changes):
    return [found.name for found in diagnose(rows, HEALTHY._replace(**changes), settings, scores)]


# --- training ------------------------------------------------------------------------------------


def test_healthy_fit_has_no_finding():
    assert names() == []
    assert names(history(approach(-790.0, -700.0), train__clipped=0.9)) == []


def test_likelihood_far_below_the_mean_rates_names_the_learning_rate():
    likelihood = np.full(60, -860.0)
    likelihood[1] = -5e4
    rows = history(approach(-790.0, -700.0), train__log_likelihood=likelihood, train__clipped=0.9)
    (found,) = diagnose(rows, HEALTHY, TRAINED)
    assert found.name == "learning_rate_too_high"
    assert "in epoch 3 the log-likelihood of training was -5e+04 nats per trial" in found.sentence
    assert "90% of an epoch's steps clipped" in found.sentence
    assert found.setting == "lower model.optimizer.lr"


def test_bound_that_is_low_for_its_kl_before_the_warm_up_ends_is_no_explosion():
    elbo = np.full(60, -870.0)
    elbo[:5] = -4000.0
    assert names(history(approach(-790.0, -700.0), train__elbo=elbo)) == []


def test_lost_ground_names_the_learning_rate():
    elbo = np.full(60, -870.0)  # 30 above the mean rate
    elbo[40] = -909.0  # within the deviation between trials
    assert names(history(approach(-790.0, -700.0), train__elbo=elbo)) == []
    elbo[40] = -911.0
    assert names(history(approach(-790.0, -700.0), train__elbo=elbo)) == ["learning_rate_too_high"]


def test_gradients_that_are_not_finite_name_the_learning_rate_but_for_the_first_epoch():
    rows = history(approach(-790.0, -700.0), train__nonfinite_gradients=[0.4] + 59 * [0.0])
    assert names(rows) == []
    rows = history(approach(-790.0, -700.0), train__nonfinite_gradients=[0.4, 0.2] + 58 * [0.0])
    assert names(rows) == ["learning_rate_too_high"]


def test_warm_up_that_had_not_ended_is_told_and_nothing_that_follows_from_it():
    rows = history(np.linspace(-1000, -950, 8))
    lost = Gain(-0.1, 0.001, -90.0)
    assert names(rows, train=lost, other=lost) == ["ramps_unfinished"]
    assert "training ended at step 80, the warm-ups end at step 100" in str(
        diagnose(rows, HEALTHY, TRAINED)[0]
    )


def test_bound_that_rose_to_the_end_asks_for_more_epochs_or_a_higher_floor():
    rising = history(np.linspace(-790.0, -700.0, 60))
    assert names(rising) == ["still_improving"]
    floor = history(np.linspace(-790.0, -700.0, 60), train__learning_rate=1e-4)
    (found,) = diagnose(floor, HEALTHY, TRAINED)
    assert found.name == "learning_rate_at_floor"
    assert found.setting == "raise model.schedule.min_lr or raise model.schedule.patience"


def test_floor_of_the_learning_rate_alone_is_nothing_to_tell():
    assert names(history(approach(-790.0, -700.0), train__learning_rate=1e-4)) == []


def test_noise_does_not_improve():
    noise = np.random.default_rng(0).normal(0, 2.0, (50, 60))
    told = [names(history(-700.0 + some)) for some in noise]
    assert sum(bool(found) for found in told) <= 3


def test_too_few_validations_tell_nothing():
    assert names(history(np.linspace(-790.0, -700.0, 5), step=50)) == []


def bounds(number, ratio, rise=100.0):
    """EM that converges linearly."""
    values = -84000.0 - rise * ratio ** np.arange(number) / (1 - ratio)
    return [{"step": i + 1.0, "bound": value} for i, value in enumerate(values)]


def test_em_that_has_much_to_gain_asks_for_iterations():
    rows = bounds(40, 0.97)
    (found,) = diagnose(rows, HEALTHY, LEARNED)
    assert found.name == "bound_still_rising"
    rest = -84000.0 - rows[-1]["bound"]  # what the series still gains
    assert float(found.sentence.split("about ")[1].split(" ")[0]) == pytest.approx(rest, rel=0.02)
    assert found.setting == "raise learner.max_iterations"


def test_em_that_has_converged_or_ended_by_its_tolerance_is_left_alone():
    assert names(bounds(40, 0.7), LEARNED) == []
    assert names(bounds(39, 0.97), LEARNED) == []


def test_a_posterior_that_is_a_point_is_not_idle():
    kls = {"val__kl/latent": 0.0}
    rows = [
        {k: v for k, v in row.items() if "elbo" not in k} for row in history([-7.0] * 20, **kls)
    ]
    assert idle(rows, TRAINED) == []


def test_a_bound_that_is_not_trained_on_may_fall():
    """With beta = 0 the likelihood rises and the KL is free."""
    likelihood = np.linspace(-990.0, -600.0, 30)
    rows = [
        {**row, "train/log_likelihood": value, "train/elbo": value - 2.0 * n**2, "train/beta": 0.0}
        for n, (row, value) in enumerate(zip(history([-900.0] * 30), likelihood, strict=True))
    ]
    null = Spread(-1000.0, 10.0)
    assert learning_rate(rows, null, TRAINED) == []
    trained_on = [{**row, "train/beta": 1.0} for row in rows]
    assert [f.name for f in learning_rate(trained_on, null, TRAINED)] == ["learning_rate_too_high"]


def test_latents_that_carry_nothing_are_told_while_training_goes_on():
    kls = {"val__kl/latent": 0.2}
    assert [found.name for found in idle(history([-700.0] * 20, **kls), TRAINED)] == [
        "posterior_collapse"
    ]
    assert idle(history([-700.0] * 13, **kls), TRAINED) == []  # three after the warm-up
    assert idle(history([-700.0] * 20, **{"val__kl/latent": 4.0}), TRAINED) == []
    assert idle(FLAT, TRAINED) == []


# --- the fitted model ----------------------------------------------------------------------------

NOTHING = Gain(0.0001, 0.0001, 0.1)


def test_collapsed_latents_name_beta():
    idle_latents = {"initial_condition": Use(0.01, 0, 16), "inferred_inputs": Use(0.1, 0, 1)}
    (found,) = diagnose(FLAT, HEALTHY._replace(latents=idle_latents, other=NOTHING), TRAINED)
    assert found.name == "posterior_collapse"
    assert "initial_condition and inferred_inputs not used" in found.sentence
    assert "model.objective.beta" in found.setting


def test_a_little_noise_in_the_posterior_is_no_use():
    noisy = {"latent": Use(0.6, 2, 3)}
    assert names(latents=noisy, other=NOTHING) == ["posterior_collapse"]
    assert names(latents=noisy) == []


def test_idle_controller_is_no_failure_and_idle_initial_condition_is_told():
    start, inputs = Use(9.0, 10, 16), Use(14.0, 1, 1)
    idle_inputs = {"initial_condition": start, "inferred_inputs": Use(0.0, 0, 1)}
    assert names(latents=idle_inputs) == []
    idle_start = {"initial_condition": Use(0.01, 0, 16), "inferred_inputs": inputs}
    (found,) = diagnose(FLAT, HEALTHY._replace(latents=idle_start), TRAINED)
    assert found.name == "posterior_collapse"
    assert "inferred_input_dim" in found.setting


def test_unused_dimensions_are_no_failure():
    assert names(latents={"latent": Use(30.0, 2, 20)}) == []


def test_overfitting_is_told_by_the_gap_per_entry():
    assert names(other=Gain(0.026, 0.002, 31.0)) == []
    assert names(other=Gain(0.02, 0.002, 24.0)) == ["overfitting"]
    assert names(other=Gain(0.02, 0.02, 24.0)) == []  # too few trials to say so
    assert names(other=Gain(-0.1, 0.002, -120.0)) == ["overfitting"]


def test_overfitting_is_told_by_held_out_neurons():
    assert names(heldout_bits=-0.2) == ["overfitting"]
    assert names(heldout_bits=math.nan) == []


def test_bound_below_the_mean_rate_is_told():
    lost = Gain(-0.05, 0.001, -60.0)
    assert names(train=lost, other=lost) == ["worse_than_mean_rate"]
    free = TRAINED._replace(beta=0.0)  # whose bound is not what was asked for
    assert names(settings=free, train=lost, other=lost) == []


def test_smoothing_that_predicts_better_is_told_by_two_standard_errors():
    def gain(mean, error):
        return {"gain": {"smoothing_glm": {"mean": mean, "standard_error": error}}}

    assert names(scores=gain(-0.05, 0.01)) == ["worse_than_smoothing"]
    assert names(scores=gain(-0.01, 0.01)) == []
    assert names(scores={"gain": {}}) == []


def test_dispersion_of_a_quarter_of_the_neurons_names_the_negative_binomial():
    above = {"dispersion": [1.5, 1.6, 1.0, 1.1, 1.0]}
    (found,) = diagnose(FLAT, HEALTHY._replace(**above), TRAINED)
    assert found.name == "overdispersed_counts"
    assert found.setting == "set model.observation to NegativeBinomial"
    assert names(**above, dispersion_error=[0.4] * 5) == []
    assert names(**above, observation="NegativeBinomial") == []
    assert names(dispersion=[1.5, 1.0, 1.0, 1.1, 1.0]) == []


def test_gaussian_on_small_counts_and_on_zeros_is_told():
    gaussian = {"kind": Real(), "observation": "Gaussian", "dispersion": []}
    assert names(**gaussian) == ["gaussian_counts"]
    assert names(**gaussian, mean=30.0) == []
    (found,) = diagnose(FLAT, HEALTHY._replace(**gaussian, are_counts=False), TRAINED)
    assert found.name == "many_zeros"
    assert found.setting == "set model.observation to ZeroInflatedGamma"
    negative = HEALTHY._replace(**gaussian, are_counts=False, least=-1.0)
    assert diagnose(FLAT, negative, TRAINED)[0].cures == ()
    assert names(**gaussian, are_counts=False, zeros=0.0) == []


def test_growing_dynamics_are_told_if_they_double_within_a_trial():
    assert names(radius=1.01) == []
    assert names(radius=1.02) == ["unstable_dynamics"]
    assert names(radius=0.99) == []


def test_silent_neurons_are_named():
    (found,) = diagnose(FLAT, HEALTHY._replace(channels=OddChannels(silent=["7", "9"])), TRAINED)
    assert str(found).startswith(
        "silent neurons: 2 neurons have no spike in the training trials: 7"
    )


# --- the check-up --------------------------------------------------------------------------------


def batch_of(target, heldin=slice(None)):
    trials, bins, _ = target.shape
    return Batch(
        observed=target[..., heldin],
        observed_mask=torch.ones_like(target[..., heldin], dtype=torch.bool),
        target=target,
        weight=torch.ones_like(target),
        inputs=torch.zeros(trials, bins, 0),
        lengths=torch.full((trials,), bins),
        trial=torch.arange(trials),
    )


def dispersion(target, means, heldin):
    excess = _excess(means, means, batch_of(target), heldin=heldin)
    ratio, error = _ratio(excess, means.mean(dim=0).sum(dim=1))
    return 1 + ratio, error


def test_dispersion_is_one_for_poisson_counts_whatever_the_posterior_knows():
    """Exact posteriors: of a gamma rate that was seen, its conjugate; that was not, the prior."""
    generator, shape = np.random.default_rng(0), 2.0
    rate = np.repeat(generator.gamma(shape, 1 / shape, (400, 10, 2)), 3, axis=1)  # 3 bins each
    counts = generator.poisson(rate)
    total = counts.reshape(400, 10, 3, 2).sum(2)
    seen = generator.gamma(shape + total, 1 / (shape + 3), (20, 400, 10, 2))
    unseen = generator.gamma(shape, 1 / shape, (20, 400, 10, 2))
    means = np.stack([seen[..., 0], unseen[..., 1]], axis=-1).repeat(3, axis=2)
    found, error = dispersion(torch.tensor(counts).double(), torch.tensor(means), heldin=[0])
    # a rate of three bins shares two thirds of its pairs, so what was not seen is not all taken off
    assert abs(found[0] - 1) < 4 * error[0]
    assert error.max() < 0.03


def test_dispersion_tells_negative_binomial_counts_and_forgives_a_slow_rate_that_was_missed():
    generator = np.random.default_rng(1)
    slow = np.exp(0.5 * np.sin(np.arange(100) / 15 + generator.uniform(0, 6, (200, 1))))[..., None]
    slow /= slow.mean()
    means = torch.ones(5, 200, 100, 2, dtype=torch.float64)
    noise = generator.gamma(2.0, 0.5, (200, 100, 1))  # variance m + m^2 / 2
    counts = generator.poisson(np.concatenate([slow, noise * np.ones_like(slow)], axis=2))
    found, error = dispersion(torch.tensor(counts).double(), means, heldin=[0, 1])
    assert abs(found[0] - 1) < max(0.05, 4 * error[0])
    assert found[1] == pytest.approx(1.5, abs=0.1)


def test_null_score_is_the_likelihood_of_the_training_means():
    data = tiny_data()
    model = SVAE(data.spec)
    model.initialize(data)
    batch = data.batch(data.trials("train"))
    expected = torch.distributions.Poisson(data.train_mean).log_prob(batch.target).sum((1, 2))
    assert null_score(model, data).mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert null_score(model, data).std == pytest.approx(float(expected.double().std()), rel=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        folder = str(tmp_path_factory.mktemp("runs") / "a")
        return fit(tiny_data(), SVAE, tiny_learner(3), run_dir=folder)


def test_check_up_knows_every_latent_and_neuron(run):
    found = check_up(run.model(), run.data())
    assert list(found.latents) == ["initial_condition", "inferred_inputs"]
    assert found.latents["initial_condition"].size == 4
    assert len(found.dispersion) == 6
    assert found.train is not None
    assert found.other is not None
    assert found.are_counts
    assert found.observation == "Poisson"
    assert check_up(run.model(), run.data()) == found


def test_evaluate_gives_advice_and_prints_it(run):
    metrics = evaluate(run, num_samples=3)
    assert "training ended at step 6" in metrics["advice"]["ramps_unfinished"]["sentence"]
    assert "raise learner.trainer.max_epochs" in metrics["advice"]["ramps_unfinished"]["setting"]
    assert "advice: ramps unfinished: training ended at step 6" in table(metrics)


def test_data_of_another_session_get_no_advice_about_the_fit(run):
    from dataclasses import replace

    from tiny import LORENZ

    assert "advice" not in evaluate(run, tiny_data(replace(LORENZ, seed=4)), num_samples=3)


def test_fit_tells_what_is_wrong_in_a_line_each(tmp_path, caplog):
    fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "a"))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "seqvae"]
    assert line.startswith("seqvae: ramps unfinished: training ended at step 2")


def test_training_that_explodes_is_told_once_while_it_goes_on(tmp_path, caplog, monkeypatch):
    told = Finding("learning_rate_too_high", "it exploded", (), "lower it")
    monkeypatch.setattr("seqvae.learning.observers.alarms.learning_rate", lambda *_: [told])
    fit(tiny_data(), SVAE, tiny_learner(3), run_dir=str(tmp_path / "a"))
    lines = [record.getMessage() for record in caplog.records if record.name == "seqvae"]
    assert lines[0] == "seqvae: learning rate too high: it exploded; lower it"
    assert lines.count(lines[0]) == 1


def test_gradient_norm_of_the_history_is_that_before_clipping(tmp_path):
    one = fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "a"))
    (row,) = read_history(one.files.history)
    assert row["train/gradient_norm"] > 0
    assert row["train/clipped"] == 0
    hard = tiny_learner(1, trainer={"gradient_clip_val": row["train/gradient_norm"] / 100})
    (clipped,) = read_history(
        fit(tiny_data(), SVAE, hard, run_dir=str(tmp_path / "b")).files.history
    )
    assert clipped["train/clipped"] == 1
    assert clipped["train/gradient_norm"] == pytest.approx(row["train/gradient_norm"], rel=0.5)
    free = tiny_learner(1, trainer={"gradient_clip_val": None})
    (row,) = read_history(fit(tiny_data(), SVAE, free, run_dir=str(tmp_path / "c")).files.history)
    assert row["train/gradient_norm"] > 0
    assert "train/clipped" not in row


def test_gradient_norm_is_the_norm_of_all_gradients(tmp_path, monkeypatch):
    from seqvae.models import LatentVariableModel

    norms = []

    def measure(self, optimizer):
        parts = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        norms.append(float(torch.stack(parts).norm()))

    monkeypatch.setattr(LatentVariableModel, "on_before_optimizer_step", measure)
    run = fit(tiny_data(), partial_vae(), tiny_learner(1), run_dir=str(tmp_path / "a"))
    (row,) = read_history(run.files.history)
    assert row["train/gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-6)


def partial_vae():
    from functools import partial

    return partial(VAE, latent_dim=2, factor_dim=4, validation_samples=2)


def test_every_finding_stands_in_the_table_of_the_docs():
    import inspect

    from seqvae.analysis import diagnosis
    from seqvae.analysis.diagnosis import activity
    from seqvae.analysis.diagnosis import fit as fitted

    source = "".join(map(inspect.getsource, (fitted, training, activity)))
    source = re.sub(r"Finding\(\s+", "Finding(", source)
    found = {word.split('"')[1] for word in source.split("Finding(")[1:] if word.startswith('"')}
    assert len(found) >= 18
    assert diagnosis.__doc__ is not None
    assert {name for name in found if f"``{name}``" not in diagnosis.__doc__} == set()


def test_linear_dynamics_are_diagnosed_without_gradients(tmp_path):
    from functools import partial

    learner = EM(max_iterations=12, progress=False)
    run = fit(
        tiny_data(), partial(LinearDynamics, latent_dim=2), learner, run_dir=str(tmp_path / "a")
    )
    data = run.data()
    config = FitConfig(run.config, data.spec, sections)
    told = findings(run.model(), data, run.history, config=config)
    assert {found.name for found in told} <= {"bound_still_rising", "worse_than_mean_rate",
                                              "overfitting", "posterior_collapse"}  # fmt: skip
