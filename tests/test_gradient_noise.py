"""Both gradient estimators agree on every model that can take them, discrete latents included."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli

from seqvae.analysis import measure_gradient_noise
from seqvae.analysis.gradient_noise import GradientNoise
from seqvae.distributions import kl
from seqvae.encoders import MLP, DeltaHead, FullNormalHead, Head
from seqvae.errors import InputError
from seqvae.models import VAE
from seqvae.objectives import Objective, bound, training_loss
from seqvae.observations import Gaussian, Poisson
from seqvae.priors import AR1, Prior
from tiny import SVAE
from toy import scramble, toy_batch, toy_spec, with_target

SPEC = toy_spec(num_neurons=4, num_time_bins=3)
BASE = Objective(beta_steps=0, num_samples=4)
ESTIMATORS = {
    "reparameterised": BASE,
    "score function": Objective(beta_steps=0, num_samples=4, gradient="score_function"),
}


def small_vae(**options) -> VAE:
    torch.manual_seed(0)
    sizes = {"latent_dim": 2, "factor_dim": 4, "dropout": 0.0}
    model = VAE(SPEC, **{**sizes, "encoder": partial(MLP, hidden_dims=(4,)), **options}).double()
    scramble(model, size=0.2)
    return model.eval()


def table(model, estimators=ESTIMATORS, **options) -> dict[str, GradientNoise]:
    batch = toy_batch(model.spec, data_kind=model.observation.kind.name)
    options = {"num_repeats": 300, "reference_repeats": 100, **options}
    return {row.name: row for row in measure_gradient_noise(model, batch, estimators, **options)}


@pytest.mark.parametrize(
    "options",
    [
        {"observation": Gaussian},
        {"observation": Poisson},
        {"prior": AR1},
        {"encoder": partial(MLP, hidden_dims=(4,), head=FullNormalHead)},
    ],
    ids=["gaussian", "poisson", "ar1", "full"],
)
def test_both_gradients_agree_and_the_score_function_scatters_more(options):
    model = small_vae(**options)
    found = table(model, parameters=model.encoder.parameters())
    for row in found.values():
        assert row.bias < 3 * row.standard_error
        assert row.within_three_errors > 0.95
    ratio = found["score function"].variance / found["reparameterised"].variance
    print(f"variance of the score function / reparameterised: {ratio:.1f}")
    assert ratio > 2


def test_importance_weighted_gradients_agree():
    model = small_vae()
    reparameterised = Objective(beta_steps=0, num_samples=4, bound="iwae")
    score = Objective(beta_steps=0, num_samples=4, bound="iwae", gradient="score_function")
    found = table(
        model, {"score function": score}, reference=reparameterised, reference_repeats=1500
    )
    row = found["score function"]
    assert row.bias < 3 * row.standard_error


@pytest.mark.parametrize("num_bins", [3, 2], ids=["encoded", "forecast"])
def test_both_gradients_agree_where_the_posterior_sees_its_own_past(num_bins: int):
    spec = toy_spec(num_neurons=4, num_time_bins=3, num_forecast_bins=3 - num_bins)
    torch.manual_seed(0)
    model = SVAE(spec, dropout=0.0).double().eval()
    scramble(model, size=0.2)
    found = table(model, num_repeats=150, reference_repeats=30)
    for row in found.values():
        assert row.bias < 3 * row.standard_error
        assert row.within_three_errors > 0.95


def test_the_baseline_takes_variance_away():
    model = small_vae()
    without = Objective(beta_steps=0, num_samples=4, gradient="score_function", baseline="none")
    found = table(model, {**ESTIMATORS, "without": without})
    assert found["without"].bias < 3 * found["without"].standard_error
    assert found["without"].variance > 3 * found["score function"].variance


def test_a_wrong_gradient_is_told_by_its_bias():
    model = small_vae()
    found = table(model, {"half": Objective(beta=0.5, beta_steps=0, num_samples=4)})["half"]
    assert found.bias > 10 * found.standard_error
    assert found.within_three_errors < 0.9


def test_the_model_and_the_random_state_stay():
    model = small_vae()
    objective, state = model.objective, torch.random.get_rng_state()
    table(model, num_repeats=2, reference_repeats=2)
    assert model.objective is objective
    assert torch.equal(state, torch.random.get_rng_state())


class BernoulliHead(Head):
    """Bits of a code."""

    def __init__(self, feature_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, latent_dim)

    def forward(self, features: Float[Tensor, "*leading feature"]) -> Bernoulli:
        return Bernoulli(logits=self.linear(features), validate_args=False)


class Coins(Prior):
    """Fair coins."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()

    def forward(self, event_shape: tuple[int, ...], bin_width: float | None = None) -> Bernoulli:
        return Bernoulli(torch.full(event_shape, 0.5).double())


def coins_vae(gradient: str) -> VAE:
    objective = Objective(beta_steps=0, num_samples=8, gradient=gradient)
    options = {"latent_dim": 3, "factor_dim": 16, "prior": Coins, "objective": objective}
    return small_vae(encoder=partial(MLP, hidden_dims=(16,), head=BernoulliHead), **options)


def test_a_discrete_code_is_learned_by_the_score_function():
    """Trials of two kinds, each with its own pair of loud neurons."""
    model, batch = coins_vae("score_function"), toy_batch(SPEC, num_trials=16)
    loud = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).repeat(8, 1)[:, None]
    batch = with_target(batch, batch.target + 5 * loud, SPEC)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    torch.manual_seed(0)
    found = []
    for step in range(200):
        optimizer.zero_grad()
        loss, terms = training_loss(model.objective, model(batch, 8), batch, step=step)
        loss.backward()
        optimizer.step()
        found.append(terms.elbo().mean().item())
    assert sum(found[-20:]) / 20 > sum(found[:20]) / 20 + 1
    latent = model(batch, 4).latents["latent"]
    assert set(latent.sample.unique().tolist()) <= {0.0, 1.0}
    assert kl(latent).mean() > 0.1
    assert bound(model(batch, 4), batch).elbo().isfinite().all()


def test_a_discrete_code_is_refused_by_the_other_gradient():
    with pytest.raises(InputError, match="posterior of type Bernoulli; use gradient 'score_funct"):
        coins_vae("reparameterised")(toy_batch(SPEC))


def test_a_point_is_refused_by_the_score_function():
    objective = Objective(num_samples=2, gradient="score_function")
    model = small_vae(encoder=partial(MLP, head=DeltaHead), objective=objective)
    with pytest.raises(InputError, match="'score_function' needs a posterior with a density"):
        model(toy_batch(SPEC))


def test_score_samples_are_constants():
    objective = Objective(num_samples=2, gradient="score_function")
    batch = toy_batch(SPEC)
    for model in (small_vae(objective=objective), SVAE(SPEC, objective=objective).double()):
        output = model(batch, 2)
        for latent in output.latents.values():
            assert not latent.sample.requires_grad
            assert latent.posterior.mean.requires_grad
