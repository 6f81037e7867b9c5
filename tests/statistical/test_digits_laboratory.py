"""What estimators, bounds and weights of the KL do to VAEs with a latent plane, on digits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional

from seqvae.data import NeuralData
from seqvae.data.sources import Digits
from seqvae.encoders import MLP
from seqvae.models import VAE
from seqvae.objectives import Bound, Objective, bound, training_loss
from seqvae.observations import Bernoulli
from seqvae.types import Batch

pytestmark = pytest.mark.slow
AT_ONCE = Objective(beta_steps=0)


@pytest.fixture(scope="module")
def data() -> NeuralData:
    made = NeuralData(Digits())
    made.setup()
    return made


def train(data: NeuralData, objective: Objective, *, steps: int) -> VAE:
    torch.manual_seed(0)
    model = VAE(
        data.spec,
        latent_dim=2,
        decoder_dims=(32,),
        factor_dim=64,
        dropout=0.0,
        encoder=partial(MLP, hidden_dims=(64,)),
        observation=Bernoulli,
    )
    model.initialize(data)
    model.objective = objective
    trials = data.trials("train")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randperm(len(trials), generator=generator)[:128]
        batch = data.batch(trials[rows.numpy()])
        optimizer.zero_grad()
        output = model(batch, objective.num_samples)
        training_loss(objective, output, batch, step=step).value.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def terms(model: VAE, batch: Batch) -> Bound:
    torch.manual_seed(1)
    return bound(model(batch, 20), batch)


@torch.no_grad()
def evidence(model: VAE, batch: Batch) -> float:
    """Mean log p(x): an integral over the plane, by a grid."""
    axis = torch.linspace(-6, 6, 201)
    plane = torch.cartesian_prod(axis, axis)
    log_prior = Normal(0.0, 1.0).log_prob(plane).sum(-1) + 2 * torch.log(axis[1] - axis[0])
    logits = model.decode(plane).logits
    log_density = batch.target[:, 0] @ logits.T - functional.softplus(logits).sum(-1)
    return float(torch.logsumexp(log_density + log_prior, dim=1).mean())


@torch.no_grad()
def energy_distance(model: VAE, images: Tensor) -> float:
    """How far samples from the prior are from images [Szekely & Rizzo 2013]."""
    torch.manual_seed(2)
    drawn = model.sample(800).emission.sample()[0, :, 0]

    def within(points: Tensor) -> Tensor:
        return torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))

    return float(2 * torch.cdist(drawn, images).mean() - within(drawn) - within(images))


def test_the_score_function_alone_learns_as_well(data: NeuralData):
    learned = data.batch(data.trials("train"))
    base = replace(AT_ONCE, num_samples=16)
    one, other = (
        float(terms(train(data, replace(base, gradient=name), steps=800), learned).elbo().mean())
        for name in ("reparameterised", "score_function")
    )
    assert abs(one - other) < 0.02 * abs(one)


def test_more_importance_samples_learn_a_higher_evidence(data: NeuralData):
    new = data.batch(data.trials("val"))
    one = evidence(train(data, AT_ONCE, steps=1500), new)
    many = evidence(train(data, replace(AT_ONCE, bound="iwae", num_samples=16), steps=1500), new)
    assert many > one + 0.2


def test_beta_trades_reconstruction_for_the_prior(data: NeuralData):
    learned, new = (data.batch(data.trials(word)) for word in ("train", "val"))
    models = {
        beta: train(data, Objective(beta=beta, beta_steps=500), steps=1000)
        for beta in (0.0, 0.5, 1.0, 4.0)
    }
    found = [terms(model, learned) for model in models.values()]
    likelihoods = [float(each.log_likelihood.mean()) for each in found]
    divergences = [float(each.kl["latent"].mean()) for each in found]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert divergences == sorted(divergences, reverse=True)
    distances = {b: energy_distance(model, new.target[:, 0]) for b, model in models.items()}
    assert distances[0.0] > 10 * distances[1.0]
    assert evidence(models[1.0], new) > max(evidence(models[b], new) for b in (0.0, 4.0)) + 1


def test_a_target_and_free_bits_hold_the_kl(data: NeuralData):
    learned = data.batch(data.trials("train"))
    target = replace(AT_ONCE, beta=10.0, kl_target=2.0)
    assert float(terms(train(data, target, steps=600), learned).kl["latent"].mean()) == (
        pytest.approx(2.0, abs=0.2)
    )
    free = train(data, replace(AT_ONCE, free_bits=3.0), steps=600)
    assert float(terms(free, learned).kl["latent"].mean()) > 5.5
