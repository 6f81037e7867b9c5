from __future__ import annotations

import json
import math
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.testing import assert_close

from linear import random_model
from seqvae import audit
from seqvae.analysis.audit import (
    JointDensity,
    Reference,
    compare,
    reference_posterior,
    simulation_based_calibration,
    what_is_seen,
)
from seqvae.analysis.audit.calibration import calibration_of_ranks, uniformity
from seqvae.analysis.audit.comparison import compare_draws, k_hat
from seqvae.analysis.audit.joint import frozen_model
from seqvae.console.main import main
from seqvae.distributions import GaussianMarkovChain, log_ratio
from seqvae.distributions.divergence import log_density
from seqvae.encoders import FreeGaussian
from seqvae.errors import InputError
from seqvae.linalg import BlockTridiagonal
from seqvae.models import FLDS, PCA, VAE, LinearDynamics, SequentialVAE
from seqvae.objectives import log_likelihood
from seqvae.observations import Gaussian, Poisson
from seqvae.types import Batch, DataSpec, Output
from tiny import SVAE, tiny_data, tiny_learner
from toy import scramble, toy_batch, toy_spec

needs_sampler = pytest.mark.skipif(
    find_spec("pyro") is None or find_spec("arviz") is None, reason="needs seqvae[audit]"
)
SPEC = toy_spec(heldout=(1, 4), num_inputs=2)
MODELS = {
    "VAE": partial(VAE, latent_dim=2),
    "FLDS": FLDS,
    "LinearDynamics": LinearDynamics,
    "SequentialVAE": SequentialVAE,
    "autonomous": partial(SequentialVAE, inferred_input_dim=0),
    "loop": partial(SequentialVAE, recursion="loop"),
}


class Halved(LinearDynamics):
    """Its posterior has half the variance that it should."""

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        output = super().forward(batch, num_samples)
        latent = output.latents["latents"]
        assert isinstance(latent.posterior, GaussianMarkovChain)
        precision = latent.posterior.precision
        narrow = GaussianMarkovChain(
            latent.posterior.mean,
            BlockTridiagonal(2 * precision.diagonal, 2 * precision.lower),
            validate_args=False,
        )
        sample = narrow.rsample(torch.Size((num_samples,)))
        told = latent._replace(posterior=narrow, sample=sample)
        return Output({"latents": told}, sample, self.observation(sample))


def linear(
    cls: type[LinearDynamics] = LinearDynamics,
    *,
    kind: str = "gaussian",
    num_bins: int = 8,
    latent_dim: int = 2,
    num_neurons: int = 6,
) -> LinearDynamics:
    spec = DataSpec(tuple(range(num_neurons)), num_neurons, 0, num_bins, num_bins, 0.02)
    observation = Gaussian if kind == "gaussian" else Poisson
    model = cls(spec, latent_dim=latent_dim, observation=observation)
    model.take(random_model(kind, latent_dim, num_neurons=num_neurons))
    model.null_counts.fill_(1.0)
    return model


def a_trial(model: LinearDynamics, *, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    activity = model.sample(1).emission.sample()[0]
    spec = model.spec
    ones = torch.ones_like(activity)
    batch = Batch(
        activity,
        ones.bool(),
        activity,
        ones,
        activity[..., :0],
        torch.tensor([spec.num_time_bins]),
        torch.arange(1),
    )
    return what_is_seen(batch, spec.heldin)


def test_a_model_that_does_not_tell_its_likelihood_says_so():
    model = PCA(SPEC, latent_dim=2)
    batch = toy_batch(SPEC)
    with pytest.raises(InputError, match="PCA does not tell"):
        model.emission_given({}, batch)


@pytest.mark.parametrize("name", MODELS)
def test_given_its_samples_a_model_answers_its_emission_and_joint_density(name):
    torch.manual_seed(0)
    model = MODELS[name](SPEC).double()
    scramble(model, size=0.05)
    model.eval()
    batch = toy_batch(SPEC, data_kind=model.observation.kind.name, lengths=(8, 7, 3, 1))[[0]]
    output = model(batch, 3)
    samples = {key: latent.sample for key, latent in output.latents.items()}
    emission = model.emission_given(samples, batch)
    assert_close(emission.mean, output.emission.mean)
    joint = JointDensity(model, batch)(samples)
    densities = [log_density(latent.posterior, latent) for latent in output.latents.values()]
    ratios = [log_ratio(latent) for latent in output.latents.values()]
    assert_close(joint - sum(densities), log_likelihood(output, batch) - sum(ratios))


def test_an_exact_posterior_is_the_joint_density_over_the_evidence():
    model = linear()
    trial = a_trial(model)
    (latent,) = model(trial, 5).latents.values()
    joint = JointDensity(model, trial)({"latents": latent.sample})
    evidence = model.evidence(trial)["log_evidence"]
    posterior = latent.posterior.log_prob(latent.sample)
    assert_close(joint - posterior, evidence.expand(5, 1))


def test_only_what_inference_sees_is_in_the_joint_density():
    spec = toy_spec(heldout=(1, 4), num_forecast_bins=2)
    batch = toy_batch(spec, data_kind="counts")[[1]]
    other = batch[[0]]
    other.target = other.target.clone()
    other.target[..., [1, 4]] = 99.0
    other.target[:, spec.num_encoded_bins :] = 99.0
    one, changed = what_is_seen(batch, spec.heldin), what_is_seen(other, spec.heldin)
    assert_close(one.weight * one.target, changed.weight * changed.target)
    assert one.target.shape[1] == min(int(batch.lengths[0]), spec.num_encoded_bins)
    assert_close(one.weight.sum(), one.observed_mask.sum().to(one.weight))


def test_a_model_is_as_it_was_after_double_precision():
    model = VAE(SPEC, latent_dim=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    with frozen_model(model, seed=1):
        assert {value.dtype for value in model.parameters()} == {torch.float64}
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.training
        torch.rand(3)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]) or bool(value.isnan().all())
    mixed = linear()  # counts in single precision, parameters in double
    learned = mixed.transition.clone()
    with frozen_model(mixed, seed=0):
        pass
    assert torch.equal(mixed.transition, learned)


@needs_sampler
def test_sampling_finds_the_exact_posterior_of_linear_dynamics():
    model = linear(num_bins=3)
    trial = a_trial(model)
    found = reference_posterior(model, trial, num_samples=100, num_warmup=50)
    assert found.r_hat < 1.05
    assert found.num_divergent == 0
    assert found.draws["latents"].shape == (2, 100, 3, 2)
    draws = found.draws["latents"].reshape(-1, 3, 2)
    (latent,) = model(trial).latents.values()
    sd = latent.posterior.variance[0].sqrt().numpy()
    error = (draws.mean(0) - latent.posterior.mean[0].numpy()) / sd
    assert np.abs(error).max() < 4.5 / math.sqrt(found.effective_size)
    assert np.abs(np.log(draws.std(0) / sd)).max() < 4.5 / math.sqrt(found.effective_size)
    told = compare(model, trial, found)
    assert told.k_hat == -math.inf
    assert told.latents["latents"].coverage[0.5] == pytest.approx(0.5, abs=0.05)
    assert told.latents["latents"].coverage[0.9] == pytest.approx(0.9, abs=0.03)


@needs_sampler
@pytest.mark.parametrize("by_sampling", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_posterior_of_half_the_variance_is_flagged(by_sampling):
    model, exact = linear(Halved, num_bins=16), linear(num_bins=16)
    trial = a_trial(model)
    if by_sampling:
        found = reference_posterior(model, trial, num_samples=250, num_warmup=150)
    else:
        draws = exact(trial, 500).latents["latents"].sample[:, 0].numpy()
        found = Reference({"latents": draws[None]}, 1.0, 500.0, 0)
    told = compare(model, trial, found)
    (latent,) = told.latents.values()
    assert told.k_hat > 0.7
    assert latent.variance_ratio == pytest.approx(0.5, rel=0.12)
    assert latent.mean_error < 0.2
    for level, share in latent.coverage.items():
        expected = 1 - 2 * norm.cdf(norm.ppf((1 - level) / 2) / math.sqrt(2))
        assert share == pytest.approx(expected, abs=0.03)


@needs_sampler
@pytest.mark.slow
def test_a_sequential_vae_is_sampled_in_all_its_latents():
    data = tiny_data()
    data.setup()
    torch.manual_seed(0)
    model = SVAE(data.spec)
    model.initialize(data)
    trial = what_is_seen(data.batch(data.trials("val")[:1]), data.spec.heldin)
    found = reference_posterior(model, trial, num_samples=20, num_warmup=20)
    told = compare(model, trial, found, num_draws=300)
    assert {name: draws.shape[2:] for name, draws in found.draws.items()} == {
        "initial_condition": (4,),
        "inferred_inputs": (10, 1),
    }
    assert all(np.isfinite(latent.mean_error) for latent in told.latents.values())
    assert next(model.parameters()).dtype == torch.float32


def test_draws_are_compared_in_units_of_the_reference():
    rng = np.random.default_rng(0)
    reference = 3 + 2 * rng.normal(size=(2, 20000, 4))
    told = compare_draws(4 + rng.normal(size=(20000, 4)), reference)
    assert told.mean_error == pytest.approx(0.5, abs=0.03)
    assert told.variance_ratio == pytest.approx(0.25, rel=0.03)
    expected = norm.cdf((1 + norm.ppf(0.75)) / 2) - norm.cdf((1 - norm.ppf(0.75)) / 2)
    assert told.coverage[0.5] == pytest.approx(expected, abs=0.01)
    assert told.model.shape == (5, 4)


@needs_sampler
def test_k_hat_is_the_shape_of_the_tail():
    for shape in (0.2, 1.0):
        uniform = np.random.default_rng(0).random(20000)
        found = k_hat(-shape * np.log(uniform))  # Pareto weights u^-k
        assert found == pytest.approx(shape, abs=0.15)
    assert k_hat(np.full(100, -3.0)) == -math.inf
    assert k_hat(np.array([0.0, -np.inf])) == math.inf


@pytest.mark.parametrize("cls", [LinearDynamics, Halved])
def test_calibration_tells_an_exact_posterior_from_one_of_half_the_variance(cls):
    calibrations = simulation_based_calibration(linear(cls), 200, 99)
    assert set(calibrations) == {"latents", "sums of latents", "log p(x, z)"}
    found = calibrations["latents"]
    assert found.ranks.shape == (200, 8, 2)
    assert found.ranks.min() >= 0
    assert found.ranks.max() <= 99
    is_exact = cls is LinearDynamics
    assert (found.p_value > 1e-3) == is_exact
    assert (found.p_value < 1e-6) != is_exact
    for level, share in found.coverage.items():
        narrowed = 1 - 2 * norm.cdf(norm.ppf((1 - level) / 2) / math.sqrt(1 if is_exact else 2))
        assert share == pytest.approx(narrowed, abs=0.03)
    assert (found.shares[0] > 0.13) != is_exact


@pytest.mark.parametrize("copies", [1, 7])
def test_p_values_of_uniform_ranks_are_uniform_whatever_trials_repeat(copies):
    """Entries of one trial that are copies of each other are no further evidence."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        ranks = np.repeat(rng.integers(0, 100, (150, 1)), copies, axis=1)
        found.append(calibration_of_ranks(ranks, 99, num_bins=5).p_value)
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.045)


def test_with_one_entry_a_trial_the_test_is_about_pearsons():
    rng = np.random.default_rng(1)
    bins = rng.choice(4, size=4000, p=[0.27, 0.25, 0.24, 0.24])
    pearson = ((np.bincount(bins) - 1000.0) ** 2 / 1000).sum()
    from scipy.stats import chi2

    assert uniformity(np.eye(4)[bins]) == pytest.approx(chi2.sf(pearson, 3), rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((10, 99), "num_trials must be at least 20"),
        ((50, 100), "num_samples . 1 must be a multiple of the 10 bins, got 100; e.g. 99"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        simulation_based_calibration(linear(), *arguments)


def test_what_is_not_simulated_is_refused():
    with pytest.raises(InputError, match="2 external inputs"):
        simulation_based_calibration(LinearDynamics(SPEC))
    with pytest.raises(InputError, match="a free posterior knows its own trials only"):
        simulation_based_calibration(VAE(toy_spec(), latent_dim=2, encoder=FreeGaussian))


@needs_sampler
def test_the_verb_leaves_numbers_and_pictures(tmp_path, capsys, monkeypatch):
    from seqvae import fit

    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    run = str(tmp_path / "run")
    fit(tiny_data(), partial(VAE, latent_dim=2), tiny_learner(), run_dir=run)
    capsys.readouterr()
    flags = "--trials 2 --num_samples 12 --num_warmup 10 --calibration_trials 20"
    assert main(["audit", "--run", run, *flags.split()]) == 0
    told = capsys.readouterr().out
    assert "k-hat above 0.7" in told
    assert "on 20 simulated trials latent lie" in told
    folder = tmp_path / "run" / "audit"
    assert {path.name for path in folder.iterdir()} == {
        "audit.json",
        "latent.png",
        "calibration.png",
    }
    found = json.loads((folder / "audit.json").read_text())
    assert len(found["trials"]) == 2
    assert set(found["mean"]["latent"]) == {
        "mean_error",
        "mean_error_exact",
        *(f"{key}{end}" for key in ("variance_ratio", "coverage_50", "coverage_90")
          for end in ("", "_error")),
    }  # fmt: skip
    assert set(found["calibration"]) == {"latent", "sums of latent", "log p(x, z)"}
    assert found["verdict"]["sentence"] in told
    assert found["verdict"]["level"] == 0.01
    with pytest.raises(InputError, match="num_chains must be at least 2, got 1"):
        audit(run, num_chains=1)
    with pytest.raises(InputError, match="is a file; give a folder"):
        audit(run, out=str(folder / "audit.json"))


def test_what_is_not_installed_is_named(monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(InputError, match=r"needs pyro.*pip install 'seqvae\[audit\]'"):
        audit("nowhere")
