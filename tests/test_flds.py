from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from linear import kalman_smoother, random_model, simulate
from seqvae import fit
from seqvae.console.main import main
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Arrays, write_hdf5
from seqvae.distributions import kl, kl_terms
from seqvae.encoders import Information, InformationEncoder, InformationMLP
from seqvae.errors import InputError
from seqvae.learning import EM
from seqvae.models import FLDS, LinearDynamics
from seqvae.objectives import Objective, bound, importance_weighted_bound, training_loss
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial, Poisson
from seqvae.runs import begin
from seqvae.state_space import LinearStateSpace
from seqvae.types import Batch, Latent
from toy import batch_around, scramble, toy_batch, toy_spec

LINEAR = {"decoder_dims": (), "encoder": partial(InformationMLP, hidden_dims=())}
KINDS = {"gaussian": Gaussian, "poisson": Poisson}


def make_flds(spec=None, **options) -> FLDS:
    torch.manual_seed(0)
    model = FLDS(spec or toy_spec(), **{"latent_dim": 2, **options}).double()
    scramble(model, size=0.1)
    return model.eval()


def latent_of(model: FLDS, batch: Batch, num_samples: int = 2) -> Latent:
    torch.manual_seed(1)
    return model(batch, num_samples).latents["latents"]


def fitted_linear(state_space: LinearStateSpace, **options) -> LinearDynamics:
    """A linear model that has these parameters, as if it had been learned."""
    num_neurons, size = state_space.emission.loadings.shape
    num_inputs = state_space.dynamics.input_matrix.shape[1]
    spec = toy_spec(num_neurons=num_neurons, num_inputs=num_inputs, num_time_bins=10, **options)
    kind = "gaussian" if hasattr(state_space.emission, "std") else "poisson"
    model = LinearDynamics(spec, latent_dim=size, observation=KINDS[kind])
    model.take(state_space)
    model.null_counts.fill_(0.3)
    return model.eval()


def started(linear: LinearDynamics, **options) -> FLDS:
    """The model that begins at a linear one, before any learning."""
    torch.manual_seed(0)
    observation = type(linear.observation)
    sizes = {"latent_dim": linear.latent_dim, "observation": observation}
    model = FLDS(linear.spec, **{**sizes, **options}).double()
    model.null_counts.copy_(linear.null_counts)
    model.observed_mean.copy_(model.null_counts[list(linear.spec.heldin)])
    model.observed_scale.fill_(1.7)
    model.begin_from(linear)
    return model.eval()


def dense(model: FLDS, batch: Batch, trial: int) -> tuple[MultivariateNormal, MultivariateNormal]:
    """Posterior and prior of the path of a trial, from the equations of the model."""
    length, size = int(batch.lengths[trial]), model.latent_dim
    dynamics = model.dynamics
    # (I - lag A) z = c + noise
    system = torch.eye(length * size, dtype=torch.float64)
    for t in range(1, length):
        rows, columns = slice(t * size, (t + 1) * size), slice((t - 1) * size, t * size)
        system[rows, columns] = -dynamics.transition
    noise = torch.block_diag(
        dynamics.initial_covariance, *[dynamics.noise_covariance] * (length - 1)
    )
    pushed = batch.inputs[trial, 1:length] @ dynamics.input_matrix.mT + dynamics.offset
    constant = torch.cat([dynamics.initial_mean[None], pushed]).flatten()
    inverse = torch.linalg.inv(system)
    prior = MultivariateNormal(inverse @ constant, inverse @ noise @ inverse.mT)
    information = model.encoder(model.standardized(batch), batch)
    seen = batch.observed_mask[trial].any(-1)
    vector = torch.where(seen[:, None], information.vector[trial], 0.0)
    matrix = torch.where(seen[:, None, None], information.matrix[trial], 0.0)
    num_encoded = min(length, len(seen))
    vector = torch.cat([vector[:num_encoded], vector.new_zeros(length - num_encoded, size)])
    added = torch.block_diag(
        *matrix[:num_encoded], *[matrix.new_zeros(size, size)] * (length - num_encoded)
    )
    precision = prior.precision_matrix + added
    mean = torch.linalg.solve(precision, prior.precision_matrix @ prior.mean + vector.flatten())
    return MultivariateNormal(mean, precision_matrix=(precision + precision.mT) / 2), prior


def test_posterior_and_divergence_are_those_of_the_dense_gaussians():
    model = make_flds(toy_spec(num_inputs=2, num_forecast_bins=2), latent_dim=3)
    batch = toy_batch(model.spec, lengths=[8, 3, 7, 1])
    batch.observed_mask = batch.observed_mask.clone()
    batch.observed_mask[0, 2:4] = False
    latent = latent_of(model, batch, 20_000)
    for trial, length in enumerate(batch.lengths.tolist()):
        posterior, prior = dense(model, batch, trial)
        mean = latent.posterior.mean[trial, :length].flatten()
        assert_close(mean, posterior.mean, rtol=0, atol=1e-10)
        variance = latent.posterior.variance[trial, :length].flatten()
        assert_close(variance, posterior.variance, rtol=0, atol=1e-10)
        wanted = kl_divergence(posterior, prior).expand(20_000)
        assert_close(kl(latent)[:, trial], wanted, rtol=1e-9, atol=1e-9)
        paths = latent.sample[:, trial, :length].flatten(1)
        error = (paths.mean(0) - posterior.mean) / posterior.stddev * 20_000**0.5
        assert error.abs().max() < 5


@pytest.mark.parametrize("num_bins", [1, 2, 3])
def test_the_shortest_trials_are_inferred(num_bins: int):
    model = make_flds(toy_spec(num_time_bins=num_bins, num_inputs=1))
    batch = toy_batch(model.spec)
    latent = latent_of(model, batch)
    posterior, prior = dense(model, batch, 0)
    assert_close(latent.posterior.mean[0].flatten(), posterior.mean)
    assert_close(kl(latent)[0, 0], kl_divergence(posterior, prior))


def test_a_trial_without_data_is_the_prior_run_on():
    model = make_flds(toy_spec(num_inputs=1))
    batch = toy_batch(model.spec)
    batch.observed_mask = batch.observed_mask.clone()
    batch.observed_mask[1] = False
    latent = latent_of(model, batch)
    assert_close(latent.posterior.mean[1], latent.prior.mean[1], rtol=0, atol=1e-12)
    assert_close(latent.posterior.variance[1], latent.prior.variance[1])
    assert_close(kl_terms(latent)[:, 1], torch.zeros(2, 8).double(), rtol=0, atol=1e-12)
    assert (kl(latent)[:, 0] > 1e-3).all()


def test_bins_without_data_have_no_factor_whatever_the_encoder_says():
    class Certain(InformationEncoder):
        def forward(self, observed, batch) -> Information:
            matrix = 50 * torch.eye(2).expand(*observed.shape[:2], 2, 2)
            return Information(torch.full_like(matrix[..., 0], torch.nan), matrix * torch.nan)

    model = make_flds(toy_spec(num_forecast_bins=3))
    batch = toy_batch(model.spec, lengths=[8, 2, 4, 6])
    batch.observed_mask = torch.zeros_like(batch.observed_mask)
    model.encoder = Certain()
    latent = latent_of(model, batch)
    assert_close(latent.posterior.mean, latent.prior.mean, rtol=0, atol=1e-12)


def test_forecast_is_the_posterior_run_on():
    model = make_flds(toy_spec(num_forecast_bins=3, num_inputs=1))
    batch = toy_batch(model.spec)
    mean, dynamics = latent_of(model, batch).posterior.mean, model.dynamics
    for step in range(5, 8):
        pushed = batch.inputs[:, step] @ dynamics.input_matrix.mT + dynamics.offset
        assert_close(mean[:, step], mean[:, step - 1] @ dynamics.transition.mT + pushed)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("lengths", [None, [10, 1, 7, 2]], ids=["equal", "unequal"])
def test_bound_is_the_evidence_where_the_posterior_is_exact(missing: float, lengths):
    state_space = random_model("gaussian", 3, num_inputs=2)
    model = started(fitted_linear(state_space), **LINEAR)
    batch = simulate(state_space, num_trials=4, num_bins=10, lengths=lengths, missing=missing)
    output = model(batch, 5)
    exact = [
        kalman_smoother(state_space, *(part[i, :length] for part in (batch.target, batch.weight,
                                                                     batch.inputs))).log_likelihood
        for i, length in enumerate(batch.lengths.tolist())
    ]  # fmt: skip
    exact = torch.tensor(exact, dtype=torch.float64)
    likelihood = (batch.weight * output.emission.log_prob(batch.target)).sum((2, 3))
    latent = output.latents["latents"]
    weights = likelihood - latent.posterior.log_prob(latent.sample)
    weights = weights + latent.prior.log_prob(latent.sample)
    # then every draw has the same weight log p(x, z) - log q(z) = log p(x)
    assert_close(weights, exact.expand(5, 4), rtol=1e-9, atol=1e-8)
    assert_close(importance_weighted_bound(output, batch), exact, rtol=1e-9, atol=1e-8)
    # and so is the bound, its expectation over z in closed form
    mean, covariance = latent.posterior.mean, latent.posterior.covariance
    emission = state_space.emission
    spread = emission.spread(covariance) / emission.std.square()
    best = model.observation(mean).log_prob(batch.target) - spread / 2
    elbo = (batch.weight * best).sum((1, 2)) - kl(latent)[0]
    assert_close(elbo, exact, rtol=1e-9, atol=1e-8)


def test_any_other_posterior_is_below_the_evidence():
    state_space = random_model("gaussian", 2)
    model = started(fitted_linear(state_space), **LINEAR)
    batch = simulate(state_space, num_trials=4, num_bins=10)
    exact = importance_weighted_bound(model(batch), batch)
    scramble(model.encoder, size=0.2)
    assert (bound(model(batch, 2000), batch).elbo() < exact).all()


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    spec = toy_spec(num_neurons=3, num_time_bins=3, num_inputs=1)
    encoder = partial(InformationMLP, hidden_dims=(3,), window=1)
    model = make_flds(spec, decoder_dims=(2,), encoder=encoder)
    batch = toy_batch(spec, num_trials=2, lengths=[3, 2])
    names, values = zip(*model.named_parameters(), strict=True)

    def elbo(*parameters: Tensor) -> Tensor:
        torch.manual_seed(3)
        given = dict(zip(names, parameters, strict=True))
        return bound(torch.func.functional_call(model, given, (batch,)), batch).elbo()

    values = tuple(value.detach().clone().requires_grad_() for value in values)
    assert torch.autograd.gradcheck(elbo, values, atol=1e-6, rtol=1e-5)


def test_single_precision_differs_by_rounding_only():
    spec = toy_spec(num_time_bins=100)
    double = make_flds(spec, latent_dim=4)
    with torch.no_grad():  # almost without noise, so that steps of the prior hang together
        double.log_noise_root -= 3 * torch.eye(4)
    single = FLDS(spec, latent_dim=4).eval()
    single.load_state_dict(double.state_dict())
    batch = toy_batch(spec)
    values, gradients = [], []
    for model in (double, single):
        given = batch.to(model.offset.dtype)
        # the bound at the posterior mean: no noise
        output = model(given)
        mean = output.latents["latents"].posterior.mean.to(model.offset.dtype)
        latent = output.latents["latents"]._replace(sample=mean[None])
        decoded = model._decoded(latent)
        loss = -bound(decoded, given).elbo().mean()
        loss.backward()
        values.append(loss.detach().double())
        found = [p.grad.flatten().double() for p in model.parameters() if p.numel()]
        gradients.append(torch.cat(found))
    assert_close(values[1], values[0], rtol=1e-6, atol=0)
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_mixed_precision_leaves_the_chain_in_double():
    model = FLDS(toy_spec(), latent_dim=3)
    batch = toy_batch(model.spec).to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch, 100)
    latent = output.latents["latents"]
    assert latent.posterior.mean.dtype == latent.prior.mean.dtype == torch.float64
    assert latent.sample.dtype == torch.float32
    assert_close(latent.posterior.mean, model(batch).latents["latents"].posterior.mean,
                 rtol=0, atol=0.05)  # fmt: skip


def test_covariances_are_positive_whatever_the_parameters():
    model = FLDS(toy_spec(), latent_dim=3).double()
    scramble(model, size=2.0)
    for covariance in (model.dynamics.noise_covariance, model.dynamics.initial_covariance):
        assert (torch.linalg.eigvalsh(covariance) > 0).all()


def test_weight_decay_spares_the_dynamics():
    model = FLDS(toy_spec(num_inputs=1))
    shrunk, kept = model.parameter_groups()
    assert kept["weight_decay"] == 0.0
    ids = {id(parameter) for parameter in kept["params"]}
    assert all(id(parameter) in ids for parameter in model.parameters(recurse=False))
    assert len(shrunk["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_without_layers_the_factors_are_the_latents():
    model = make_flds(**LINEAR)
    output = model(toy_batch(model.spec))
    assert torch.equal(output.factors, output.latents["latents"].sample)


@pytest.mark.parametrize("observation", [Gaussian, Bernoulli, NegativeBinomial])
def test_any_observation_model_is_read_out(observation):
    model = make_flds(observation=observation)
    batch = toy_batch(model.spec, data_kind=observation.kind.name)
    assert bound(model(batch, 3), batch).elbo().isfinite().all()


def test_new_trials_have_the_moments_of_the_prior():
    model = make_flds()
    sample = model.sample(4000).latents["latents"].sample[0]
    prior = model.dynamics.chain(torch.zeros(1, 8, 0, dtype=torch.float64))
    error = (sample.mean(0) - prior.mean[0]) / prior.variance[0].sqrt() * 4000**0.5
    assert error.abs().max() < 5
    assert_close(sample.var(0), prior.variance[0], rtol=0.12, atol=0)


def test_poor_data_are_learned_from():
    """A silent neuron, a trial without spikes, one without data, more latents than neurons."""
    spec = toy_spec(num_neurons=4, num_time_bins=5)
    batch = toy_batch(spec, num_trials=3).to(torch.float32)
    batch.target[:, :, 2] = 0
    batch.target[1] = 0
    mask = torch.ones_like(batch.observed_mask)
    mask[2] = False
    batch = replace(batch, observed=batch.target * mask, observed_mask=mask)
    batch.weight[2] = 0
    torch.manual_seed(0)
    model = FLDS(spec, latent_dim=6)
    optimizer = model.make_optimizer(model.parameter_groups())
    losses = []
    for _ in range(30):
        loss = -bound(model(batch), batch).elbo()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.detach())
    assert torch.stack(losses).isfinite().all()
    assert losses[-1].mean() < losses[0].mean()
    assert_close(losses[-1][2], torch.zeros(()).double(), rtol=0, atol=1e-9)


# the encoder


def encode(encoder: InformationMLP, num_bins: int = 7) -> tuple[Tensor, Information]:
    torch.manual_seed(0)
    observed = torch.randn(3, num_bins, 4, dtype=torch.float64)
    return observed, encoder(observed, batch_around(observed))


@pytest.mark.parametrize("window", [0, 1, 9])
def test_information_is_positive_and_knows_its_window_only(window: int):
    torch.manual_seed(0)
    encoder = InformationMLP(4, 3, window=window).double()
    scramble(encoder)
    observed, information = encode(encoder)
    assert (torch.linalg.eigvalsh(information.matrix) > -1e-12).all()
    assert_close(information.matrix, information.matrix.mT)
    changed = observed.clone()
    changed[:, 3] += 1
    after = encoder(changed, batch_around(changed))
    for part, twin in zip(information, after, strict=True):
        bins = (part != twin).flatten(2).any(-1).all(0).nonzero().flatten().tolist()
        assert bins == [t for t in range(7) if abs(t - 3) <= window]


def test_information_of_a_linear_encoder_adds_up_over_the_observed_neurons():
    encoder = InformationMLP(4, 3, hidden_dims=()).double()
    scramble(encoder)
    observed = torch.randn(2, 5, 4, dtype=torch.float64)
    mask = torch.rand(2, 5, 4) > 0.4
    vector, matrix = encoder(observed, batch_around(observed, mask=mask))
    for trial in range(2):
        for t in range(5):
            rows = mask[trial, t]
            gain, offset, root = encoder.gain[rows], encoder.offset[rows], encoder.root[rows]
            assert_close(vector[trial, t], observed[trial, t, rows] @ gain + offset.sum(0))
            assert_close(matrix[trial, t], root.mT @ root)


def test_window_below_zero_is_refused():
    with pytest.raises(InputError, match="window must be at least 0, got -1"):
        InformationMLP(4, 3, window=-1)


def test_size_below_one_is_refused():
    with pytest.raises(InputError, match="latent_dim must be at least 1, got 0"):
        FLDS(toy_spec(), latent_dim=0)


# start from a fitted linear model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoder_dims", [(), (8,)], ids=["linear", "network"])
def test_start_has_the_prior_and_the_readout_of_the_fitted_model(kind, decoder_dims):
    linear = fitted_linear(random_model(kind, 3, num_inputs=2))
    model = started(linear, decoder_dims=decoder_dims)
    for name, value in vars(linear.state_space.dynamics).items():
        assert_close(getattr(model.dynamics, name), value, rtol=0, atol=1e-12)
    inputs = torch.randn(3, 10, 2, dtype=torch.float64)
    drawn = model.sample(3, inputs)
    path = drawn.latents["latents"].sample
    assert_close(drawn.emission.mean, linear.observation(path).mean)
    if kind == "gaussian":
        assert_close(drawn.emission.stddev, linear.observation(path).stddev)


def test_start_answers_as_the_fitted_model_with_gaussian_noise():
    linear = fitted_linear(random_model("gaussian", 3, num_inputs=2), heldout=(1, 3))
    model = started(linear, **LINEAR)
    batch = toy_batch(linear.spec, data_kind="real", lengths=[10, 3, 10, 7])
    ours, theirs = (latent_of(each, batch) for each in (model, linear))
    assert_close(ours.posterior.mean, theirs.posterior.mean, rtol=0, atol=1e-9)
    assert_close(ours.posterior.variance, theirs.posterior.variance, rtol=0, atol=1e-9)
    assert_close(kl(ours), kl(theirs), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("options", [LINEAR, {}], ids=["linear", "network"])
def test_start_answers_nearly_as_the_fitted_model_with_counts(options):
    state_space = random_model("poisson", 2, num_neurons=20)
    emission = replace(state_space.emission, loadings=0.4 * state_space.emission.loadings)
    state_space = state_space._replace(emission=emission)
    linear = fitted_linear(state_space)
    batch = simulate(state_space, num_trials=30, num_bins=10)
    linear.null_counts.copy_(batch.target.mean((0, 1)))
    output, wanted = (each(batch, 50) for each in (started(linear, **options), linear))
    ours, theirs = (each.latents["latents"].posterior.mean.flatten() for each in (output, wanted))
    assert np.corrcoef(ours.detach(), theirs)[0, 1] > 0.97
    # a better bound than that of a posterior that has seen nothing
    blind = replace(batch, observed_mask=torch.zeros_like(batch.observed_mask))
    model = started(linear, **options)
    assert bound(model(batch, 50), batch).elbo().mean() > (
        bound(model(blind, 50), batch).elbo().mean()
    )


def test_start_of_a_model_that_does_not_fit_is_refused():
    linear = fitted_linear(random_model("poisson", 2))
    for options, sentence in (
        ({"latent_dim": 3}, "latent_dim is 2 in the fitted model, but 3 here"),
        ({"observation": Gaussian}, "the kind of data is counts in the fitted model, but real"),
    ):
        with pytest.raises(InputError, match=sentence):
            started(linear, **options)
    with pytest.raises(InputError, match="call initialize first"):
        FLDS(linear.spec, latent_dim=2).begin_from(linear)


def counts_data() -> NeuralData:
    activity = np.random.default_rng(0).poisson(0.5, (20, 8, 6)).astype(float)
    data = NeuralData(Arrays(activity, 0.02), heldout=[1, 4])
    data.setup()
    return data


def test_start_is_read_when_learning_begins_only(tmp_path):
    start, data = str(tmp_path / "linear"), counts_data()
    learner = EM(max_iterations=2, progress=False)
    linear = fit(data, partial(LinearDynamics, latent_dim=2), learner, run_dir=start).model()
    model = begin(partial(FLDS, latent_dim=2, start=start), data)
    assert_close(model.transition.double(), linear.transition, rtol=1e-6, atol=1e-7)
    assert_close(model.observation.readout.weight[:, :2].double(),
                 linear.observation.readout.weight, rtol=1e-6, atol=1e-7)  # fmt: skip
    shutil.rmtree(start)
    twin = begin(partial(FLDS, latent_dim=2, start=start), data, is_resumed=True)
    twin.load_state_dict(model.state_dict())


def test_start_that_nobody_has_read_is_refused_by_a_trainer():
    model = FLDS(counts_data().spec, latent_dim=2, start="runs/linear")
    with pytest.raises(InputError, match="start is read by fit; with a Trainer of your own"):
        model.setup("fit")


def test_start_of_other_sizes_is_refused_by_fit(tmp_path):
    start, data = str(tmp_path / "linear"), counts_data()
    learner = EM(max_iterations=1, progress=False)
    fit(data, partial(LinearDynamics, latent_dim=2), learner, run_dir=start)
    with pytest.raises(InputError, match=r"^start: latent_dim is 2 in the fitted model"):
        fit(data, partial(FLDS, latent_dim=3, start=start), run_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("nowhere", "start: .*nowhere' is not a run; give the run_dir of a fitted LinearDynamics"),
        ("vae", "start: model must be .*LinearDynamics.*VAE"),
    ],
)
def test_start_from_what_is_no_linear_model_is_refused(tmp_path, folder, sentence):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.yaml").write_text("model: {class_path: seqvae.models.VAE}")
    model, run = partial(FLDS, start=str(tmp_path / folder)), tmp_path / "run"
    with pytest.raises(InputError, match=sentence):
        fit(counts_data(), model, run_dir=str(run))
    assert not run.exists()


def test_a_run_does_not_need_the_run_it_started_from(tmp_path, capsys):
    counts = np.random.default_rng(0).poisson(0.5, size=(20, 8, 6)).astype(float)
    source = tmp_path / "recording.h5"
    write_hdf5(Recording(counts, bin_width=0.02, heldin=np.arange(4)), source)
    start, run = tmp_path / "linear", tmp_path / "run"
    given = ["--data.source.path", str(source), "--model.latent_dim", "2"]
    linear = ["fit", "--model", "seqvae.models.LinearDynamics", *given, "--run_dir", str(start)]
    assert main([*linear, "--learner.max_iterations", "2"]) == 0
    ours = ["fit", "--model", "seqvae.models.FLDS", *given, "--run_dir", str(run)]
    ours += ["--model.start", str(start), "--learner.trainer.max_epochs", "1"]
    assert main(ours) == 0
    shutil.rmtree(start)
    assert main(["evaluate", "--run", str(run), "--num_samples", "2"]) == 0
    assert "co_bps" in capsys.readouterr().out


def test_score_function_trains_it():
    objective = Objective(beta_steps=0, gradient="score_function", num_samples=4)
    data = NeuralData(Arrays(torch.poisson(torch.full((8, 6, 5), 0.8)).numpy(), bin_width=0.02))
    model = FLDS(data.spec, latent_dim=2, objective=objective)
    model.initialize(data)
    output = model(data.batch([0, 1, 2]), 4)
    assert not output.latents["latents"].sample.requires_grad
    training_loss(objective, output, data.batch([0, 1, 2]), step=0).value.backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
