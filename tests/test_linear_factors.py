from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from linear import random_model, simulate
from seqvae import EM, LinearDynamics, NeuralData, evaluate, fit, infer
from seqvae.data import Recording
from seqvae.data.sources import Arrays
from seqvae.distributions import kl
from seqvae.errors import InputError
from seqvae.learning import ClosedForm, default_learner
from seqvae.models import PCA, FactorAnalysis
from seqvae.observations import Bernoulli, Gaussian
from seqvae.runs import Run
from seqvae.types import Batch, DataSpec
from tiny import LORENZ, in_memory, tiny_data
from toy import toy_batch, toy_spec

MEMBERS = pytest.mark.parametrize("member", [FactorAnalysis, PCA])
NEURONS = 12


def factor_data(
    num_trials: int = 400, *, num_bins: int = 1, size: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real data (trial, time, neuron) of a factor model, its loadings and variances of noise."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(1).normal(size=(NEURONS, size))
    noise = np.random.default_rng(2).uniform(0.2, 2.0, NEURONS)
    latents = rng.normal(size=(num_trials, num_bins, size))
    errors = rng.normal(size=(num_trials, num_bins, NEURONS)) * np.sqrt(noise)
    return latents @ loadings.T + errors, loadings, noise


def whole_batch(activity: np.ndarray) -> Batch:
    """All trials and neurons, NaN = missing."""
    values = torch.from_numpy(activity).double()
    seen = values.isfinite()
    values = values.nan_to_num(0.0)
    num_trials, num_bins, _ = values.shape
    inputs, lengths = values.new_zeros(num_trials, num_bins, 0), torch.full((num_trials,), num_bins)
    trial = torch.arange(num_trials)
    return Batch(values, seen, values, seen.double(), inputs, lengths, trial)


def spec_of(batch: Batch, **changes) -> DataSpec:
    _, num_bins, num_neurons = batch.target.shape
    return toy_spec(num_neurons=num_neurons, num_time_bins=num_bins, **changes)


def learned(member, batch: Batch, **options):
    torch.manual_seed(0)
    model = member(spec_of(batch), **{"latent_dim": 2, **options})
    model.learn(batch, ridge=1.0)
    return model.eval()


# --- loadings ---------------------------------------------------------------------------------


def test_factor_analysis_explains_the_covariance_of_a_factor_model():
    activity, loadings, noise = factor_data(20_000)
    model = learned(FactorAnalysis, whole_batch(activity), observation=Gaussian)
    unit = model.unit[:, None]
    found = unit * (model.loadings @ model.loadings.mT) * unit.mT
    assert_close(found, torch.from_numpy(loadings @ loadings.T), rtol=0, atol=0.15)
    variances = model.log_noise.exp() * model.unit.square()
    assert_close(variances, torch.from_numpy(noise), rtol=0.1, atol=0)


def test_principal_components_are_those_of_tipping_and_bishop():
    root = np.random.default_rng(0).normal(size=(6, 6))
    covariance = root @ root.T + np.eye(6)
    weight, noise = PCA.factorize(covariance, 2)
    values, vectors = np.linalg.eigh(covariance)
    left_out = values[:4].mean()
    np.testing.assert_allclose(noise, left_out)
    kept = (vectors[:, 4:] * (values[4:] - left_out)) @ vectors[:, 4:].T
    np.testing.assert_allclose(weight @ weight.T, kept, atol=1e-10)


def test_factor_analysis_of_the_covariance_is_that_of_the_data():
    from sklearn.decomposition import FactorAnalysis as Solver

    data = factor_data(500)[0][:, 0]
    found = FactorAnalysis.factorize(np.cov(data.T, ddof=0), 2)
    solver = Solver(2, svd_method="lapack", tol=1e-6, max_iter=5000).fit(data)
    np.testing.assert_allclose(
        found.weight @ found.weight.T, solver.components_.T @ solver.components_, atol=5e-3
    )
    np.testing.assert_allclose(found.noise, solver.noise_variance_, rtol=2e-2)


def test_latents_do_not_hang_on_the_units_of_real_data():
    activity, _, _ = factor_data(100, num_bins=4)
    units = 10.0 ** np.linspace(-3, 3, NEURONS)
    one, other = (
        learned(FactorAnalysis, whole_batch(x), observation=partial(Gaussian, min_std=0.0))
        for x in (activity, 5 * units + units * activity)
    )
    latents = [
        m(whole_batch(x)).latents["latents"].posterior.mean
        for m, x in ((one, activity), (other, 5 * units + units * activity))
    ]
    assert_close(latents[0], latents[1], rtol=0, atol=1e-6)


# --- posterior --------------------------------------------------------------------------------


@MEMBERS
def test_posterior_is_that_of_the_joint_gaussian(member):
    activity, _, _ = factor_data(50)
    batch = whole_batch(activity)
    model = learned(member, batch, observation=Gaussian)
    some = [0, 3, 4, 9]
    seen = batch.weight[..., some] > 0
    posterior = model.infer(batch.target[..., some], seen, some, 1)
    loadings = model.loadings[some]
    covariance = loadings @ loadings.mT + model.log_noise[some].exp().diag()
    gain = torch.linalg.solve(covariance, loadings).mT
    features = (batch.target[..., some] - model.center[some]) / model.unit[some]
    assert_close(posterior.mean, features @ gain.mT, rtol=0, atol=1e-10)
    wanted = torch.eye(2).double() - gain @ loadings
    assert_close(posterior.covariance_matrix, wanted.expand(50, 1, 2, 2), rtol=0, atol=1e-10)


@MEMBERS
def test_missing_neurons_are_neurons_left_out(member):
    truth = random_model("poisson", 2, num_neurons=NEURONS)
    batch = simulate(truth, num_trials=30, num_bins=15)
    model = learned(member, batch)
    fewer = list(range(0, NEURONS, 2))
    seen = torch.zeros_like(batch.observed_mask)
    seen[..., fewer] = True
    masked = model.infer(batch.target, seen, list(range(NEURONS)), 15)
    alone = model.infer(batch.target[..., fewer], seen[..., fewer], fewer, 15)
    assert_close(masked.mean, alone.mean, rtol=0, atol=1e-12)
    assert_close(masked.covariance_matrix, alone.covariance_matrix, rtol=0, atol=1e-12)


@MEMBERS
def test_trials_that_show_nothing_are_at_the_prior_and_forecasts_go_there(member):
    truth = random_model("poisson", 2, num_neurons=NEURONS)
    batch = simulate(truth, num_trials=30, num_bins=40)
    model = learned(member, batch, smoothing=0.06)  # three bins
    model.spec = spec_of(batch, num_forecast_bins=20)
    seen = batch.observed_mask[:, :20].clone()
    seen[2] = False
    latent = model(replace(batch, observed=batch.observed[:, :20], observed_mask=seen), 2).latents[
        "latents"
    ]
    assert_close(kl(latent)[:, 2], torch.zeros(2).double(), rtol=0, atol=1e-12)
    assert_close(latent.posterior.mean[2], torch.zeros(40, 2).double())
    spread = latent.posterior.variance[0]
    assert (spread[20:].diff(dim=0) >= -1e-12).all()
    assert_close(spread[-1], torch.ones(2).double())


@MEMBERS
def test_trailing_gaps_are_a_shorter_trial(member):
    truth = random_model("poisson", 2, num_neurons=NEURONS)
    batch = simulate(truth, num_trials=10, num_bins=20, lengths=[12] + [20] * 9)
    model = learned(member, batch)
    short = model.infer(batch.target[:1, :12], batch.observed_mask[:1, :12], [*range(NEURONS)], 12)
    padded = model(batch[:1]).latents["latents"].posterior
    assert_close(padded.mean[:, :12], short.mean, rtol=0, atol=1e-12)


# --- smoothing and readout ----------------------------------------------------------------------


def test_smoothing_is_told_in_seconds():
    assert float(PCA(toy_spec(), smoothing=0.05).width) == pytest.approx(2.5)
    assert float(PCA(replace(toy_spec(), bin_width=None), smoothing=0.5).width) == 0.5


@MEMBERS
@pytest.mark.parametrize("slow", [True, False])
def test_the_kernel_is_as_wide_as_the_latents_are_slow(member, slow):
    torch.manual_seed(0)
    phase = 6 * torch.rand(40, 1, 1)
    time = torch.arange(60)[None, :, None] * (2 * torch.pi / 60)
    drive = torch.sin(time + phase) if slow else torch.randn(40, 60, 1)
    counts = torch.poisson(torch.exp(0.3 + drive * torch.linspace(-1, 1, NEURONS))).double()
    width = float(learned(member, whole_batch(counts.numpy()), latent_dim=1).width)
    assert width >= 2.0 if slow else width == 0.0


@MEMBERS
def test_readout_is_that_of_a_count_model(member):
    truth = random_model("poisson", 2, num_neurons=30)
    batch = simulate(truth, num_trials=60, num_bins=40)
    model = learned(member, batch)
    test = simulate(truth, num_trials=20, num_bins=40, seed=1)
    seen = [n for n in range(30) if n % 3]
    model.spec = spec_of(test, heldout=range(0, 30, 3))
    asked = replace(
        test, observed=test.observed[..., seen], observed_mask=test.observed_mask[..., seen]
    )
    rates = model(asked, 50).emission.mean.mean(0)
    hidden, target, null = rates[..., ::3], test.target[..., ::3], batch.target[..., ::3]
    gain = target * hidden.log() - hidden
    null = null.mean((0, 1))
    gain = (gain - target * null.log() + null).sum() / target.sum() / np.log(2)
    assert gain > 0.1


def test_neurons_do_not_predict_themselves():
    counts = np.random.default_rng(0).poisson(0.5, (60, 20, NEURONS)).astype(float)
    model = learned(FactorAnalysis, whole_batch(counts))
    assert model.observation.readout.weight.abs().max() < 0.15
    assert_close(
        model.observation.readout.bias.exp(),
        torch.from_numpy(counts.mean((0, 1))),
        rtol=0.02,
        atol=0,
    )


# --- edge cases ---------------------------------------------------------------------------------


def edge_case(name: str) -> tuple[Batch, int]:
    bins = {"one bin": 1, "two bins": 2}.get(name, 12)
    trials = 1 if name == "one trial" else 8
    neurons = 1 if name == "one neuron" else 4
    truth = random_model("poisson", 2, num_neurons=neurons)
    missing = 0.2 if name == "part of a bin missing" else 0.0
    lengths = [12, 1, 5, 12, 12, 2, 12, 12] if name == "unequal lengths" else None
    batch = simulate(truth, num_trials=trials, num_bins=bins, missing=missing, lengths=lengths)
    if name == "silent neuron":
        batch.target[..., 2] = 0
    elif name == "silent trial":
        batch.target[1] = 0
    elif name == "missing trial":
        batch.target[1] = batch.weight[1] = 0
    elif name == "rank-deficient":
        batch.target[..., 1:] = batch.target[..., :1]
    elif name == "inputs":
        batch = replace(batch, inputs=torch.ones(trials, bins, 2, dtype=torch.float64))
    return batch, {"more latents than neurons": 6, "rank-deficient": 4}.get(name, 2)


@MEMBERS
@pytest.mark.parametrize(
    "name",
    [
        "one bin",
        "two bins",
        "one trial",
        "one neuron",
        "unequal lengths",
        "silent neuron",
        "silent trial",
        "missing trial",
        "part of a bin missing",
        "more latents than neurons",
        "rank-deficient",
        "inputs",
    ],
)
def test_edge_cases_are_learned(member, name):
    batch, size = edge_case(name)
    model = learned(member, batch, latent_dim=size)
    for value in model.state_dict().values():
        assert value.isnan().all() or value.isfinite().all()
    output = model(batch, 3)
    assert output.emission.mean.isfinite().all()
    assert output.factors.shape[-1] == size
    if name == "silent neuron":
        assert not model.loadings[2].any()
        assert output.emission.mean[..., 2].max() < 1e-8
    if name == "more latents than neurons":
        assert not model.loadings[:, 4:].any()


@MEMBERS
def test_a_constant_channel_is_left_alone(member):
    activity, _, _ = factor_data(30, num_bins=5)
    activity[..., 3] = 7.0
    model = learned(member, whole_batch(activity), observation=Gaussian)
    assert not model.loadings[3].any()
    told = model(whole_batch(activity)).emission.mean[..., 3]
    assert_close(told, torch.full_like(told, 7.0), rtol=0, atol=0.02)


# --- settings and verbs ---------------------------------------------------------------------------


@MEMBERS
def test_bad_settings_are_refused(member):
    with pytest.raises(InputError, match="latent_dim must be at least 1, got 0"):
        member(toy_spec(), latent_dim=0)
    with pytest.raises(InputError, match="smoothing must be 'auto' or seconds, at least 0, got -1"):
        member(toy_spec(), smoothing=-1.0)
    with pytest.raises(InputError, match=f"{member.__name__} reads Poisson and Gaussian.*Bernoull"):
        member(toy_spec(), observation=Bernoulli)


@pytest.mark.parametrize(
    ("model", "learner", "told"),
    [
        (PCA, EM(), "EM cannot learn a PCA; use ClosedForm"),
        (LinearDynamics, ClosedForm(), "ClosedForm cannot learn a LinearDynamics; use EM"),
        (PCA, ClosedForm(ridge=-1.0), "ridge must be zero or positive, got -1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(model, learner, told, tmp_path):
    with pytest.raises(InputError, match=told):
        fit(in_memory(), model, learner, run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_neuron_without_a_value_is_refused(tmp_path):
    recording = LORENZ.load()
    activity = recording.activity.copy()
    activity[:, :, 4] = np.nan
    data = NeuralData(Arrays(Recording(activity, 0.01, split=recording.split)))
    with pytest.raises(InputError, match="neuron 4"):
        fit(data, PCA, run_dir=str(tmp_path / "run"))


@MEMBERS
def test_a_fit_leaves_a_run_that_answers_the_verbs(member, tmp_path):
    assert default_learner(member) is ClosedForm
    run = fit(tiny_data(), partial(member, latent_dim=2), run_dir=str(tmp_path / "run"))
    left = {path.name for path in run.folder.iterdir()}
    assert {"config.yaml", "weights.pt", "history.csv", "provenance.json", "figures"} <= left
    drawn = {path.stem for path in run.files.figures.iterdir()}
    assert drawn == {"learning_curves", "rasters_and_rates", "rate_traces", "latents"}
    loaded = Run(run.folder)
    assert loaded.config["learner"]["class_path"] == "seqvae.learning.ClosedForm"
    batch = run.data().batch([0, 1])
    one, other = (m(batch).latents["latents"].posterior for m in (run.model(), loaded.model()))
    assert torch.equal(one.mean, other.mean)
    posterior = infer(loaded, num_samples=3)
    assert np.isfinite(posterior["latents_mean"]).all()
    metrics = evaluate(loaded, num_samples=3)
    assert {"elbo", "co_bps", "rates_r2"} <= set(metrics)


def test_data_without_validation_trials_and_with_gaps_and_inputs_are_learned(tmp_path):
    batch = simulate(random_model("gaussian", 2, num_inputs=1), num_trials=100, num_bins=9)
    activity = batch.target.numpy().copy()
    activity[3, 5:] = np.nan
    activity[4, 2, 1] = np.nan
    source = Arrays(activity, 0.02, inputs=batch.inputs.numpy())
    data = NeuralData(source, heldout=[1], forecast_bins=2, val_fraction=0.0, test_fraction=0.2)
    model = partial(FactorAnalysis, latent_dim=2, observation=Gaussian)
    with pytest.warns(UserWarning, match="does not read the 1 external inputs"):
        run = fit(data, model, run_dir=str(tmp_path / "run"))
    metrics = evaluate(run, data, num_samples=5)
    assert np.isfinite(metrics["elbo"])
    mean_rate = metrics["baselines"]["mean_rate"]
    assert metrics["heldout_log_likelihood"] > mean_rate["heldout_log_likelihood"]


@MEMBERS
def test_one_fit_serves_every_choice_of_heldin_neurons(member):
    truth = random_model("poisson", 2, num_neurons=6)
    batch = simulate(truth, num_trials=20, num_bins=8)
    one = learned(member, batch)
    spec = toy_spec(heldout=(1, 4))
    other = member(spec, latent_dim=2)
    other.load_state_dict(one.state_dict())
    fewer = toy_batch(spec)
    seen = list(spec.heldin)
    wanted = one.infer(fewer.observed, fewer.observed_mask, seen, 8)
    assert_close(other(fewer).latents["latents"].posterior.mean, wanted.mean)
