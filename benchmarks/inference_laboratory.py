"""Estimators, bounds and weights of the KL, compared on scikit-learn's digits.

    python benchmarks/inference_laboratory.py [gradients] [reinforce] [iwae] [beta]

``gradients``: score function against reparameterised gradient, on small VAEs. The rest trains
Bernoulli VAEs with a latent plane on 1437 digits and scores them on 360 others in nats per image.
There the evidence is exact: an integral over a grid of the plane.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from seqvae.analysis import measure_gradient_noise
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays, Digits
from seqvae.encoders import MLP, DeltaHead
from seqvae.models import VAE
from seqvae.objectives import Objective, bound, has_elbo, training_loss
from seqvae.observations import Bernoulli, Gaussian, Poisson
from seqvae.types import Batch

AT_ONCE = Objective(beta_steps=0)


def digits() -> tuple[NeuralData, Batch, Batch]:
    data = NeuralData(Digits())
    return data, data.batch(data.trials("train")), data.batch(data.trials("val"))


def train(
    data: NeuralData, objective: Objective, *, steps: int, seed: int = 0, encoder=None
) -> VAE:
    torch.manual_seed(seed)
    hidden = partial(MLP, hidden_dims=(64,)) if encoder is None else encoder
    model = VAE(
        data.spec, latent_dim=2, decoder_dims=(32,), factor_dim=64, dropout=0.0,
        encoder=hidden, observation=Bernoulli, objective=objective,
    )  # fmt: skip
    model.initialize(data)
    train_trials = data.trials("train")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randperm(len(train_trials), generator=generator)[:128]
        batch = data.batch(train_trials[rows.numpy()])
        output = model(batch, objective.num_samples)
        optimizer.zero_grad()
        training_loss(objective, output, batch, step=step).value.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def evidence(model: VAE, batch: Batch, *, extent: float = 6.0, points: int = 241) -> Tensor:
    """Integrate to log p(x) of each image, by the trapezoidal rule on the plane."""
    axis = torch.linspace(-extent, extent, points)
    plane = torch.cartesian_prod(axis, axis)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(plane).sum(-1)
    log_cell = 2 * torch.log(axis[1] - axis[0])
    logits = model.decode(plane).logits
    image = batch.target[:, 0]
    log_density = image @ logits.T - torch.nn.functional.softplus(logits).sum(-1)
    return torch.logsumexp(log_density + log_prior + log_cell, dim=1)


@torch.no_grad()
def scores(
    model: VAE, batch: Batch, learned: Batch | None = None, *, num_samples: int = 100
) -> dict[str, float]:
    """Reconstruction, KL, bound and evidence, and how far samples of the prior are from images."""
    torch.manual_seed(1)
    output = model(batch, num_samples)
    terms = bound(output, batch)
    found = {"reconstruction": -float(terms.log_likelihood.mean())}
    if learned is not None:
        again = bound(model(learned, 10), learned).log_likelihood.mean()
        found = {"of learned": -float(again), **found}
    if has_elbo(output):
        found["kl"] = float(terms.kl["latent"].mean())
        found["elbo"] = float(terms.elbo().mean())
    found["evidence"] = float(evidence(model, batch).mean())
    drawn = model.sample(1000).emission.sample()[0, :, 0]
    found["energy_distance"] = energy_distance(drawn, batch.target[:, 0])
    return found


def energy_distance(one: Tensor, other: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|; 0 for equal distributions [Szekely & Rizzo 2013]."""
    n, m = len(one), len(other)
    within = torch.cdist(one, one).sum() / (n * (n - 1)) + torch.cdist(other, other).sum() / (
        m * (m - 1)
    )
    return float(2 * torch.cdist(one, other).mean() - within)


def gradients() -> None:
    generator = np.random.default_rng(0)
    print(
        "decoder        samples  bias / error  within 3 errors  variance  ratio to reparameterised"
    )
    for observation in (Gaussian, Poisson):
        activity = generator.poisson(1.0, (8, 5, 6)).astype(float)
        data = NeuralData(Arrays(activity, 0.02), val_fraction=0.0)
        torch.manual_seed(0)
        model = VAE(
            data.spec, latent_dim=2, factor_dim=8, dropout=0.0,
            encoder=partial(MLP, hidden_dims=(8,)), observation=observation,
        ).eval()  # fmt: skip
        model.initialize(data)
        batch = data.batch(data.trials("train"))
        for num_samples in (2, 8, 32):
            base = replace(AT_ONCE, num_samples=num_samples)
            rows = measure_gradient_noise(
                model,
                batch,
                {
                    "reparameterised": base,
                    "score function": replace(base, gradient="score_function"),
                    "without baseline": replace(base, gradient="score_function", baseline="none"),
                },
                num_repeats=1000,
                reference_repeats=1000,
                parameters=model.encoder.parameters(),
            )
            for row in rows:
                print(
                    f"{observation.__name__:9}{row.name:17}{num_samples:5}"
                    f"{row.bias / row.standard_error:12.2f}{row.within_three_errors:15.3f}"
                    f"{row.variance:14.4g}{row.variance / rows[0].variance:14.1f}"
                )


def reinforce() -> None:
    data, learned, val = digits()
    base = replace(AT_ONCE, num_samples=16)
    for seed in range(2):
        models = [
            train(data, replace(base, gradient=name), steps=2000, seed=seed)
            for name in ("reparameterised", "score_function")
        ]
        for word, batch in (("learned", learned), ("new", val)):
            one, other = (scores(model, batch)["elbo"] for model in models)
            print(f"seed {seed}, {word} images: ELBO {one:.2f} reparameterised, {other:.2f} by the "
                  f"score function, {100 * (one - other) / abs(one):.2f} % below")  # fmt: skip


def iwae() -> None:
    data, _, val = digits()
    for seed in range(2):
        found = {
            k: scores(train(data, replace(AT_ONCE, bound=name, num_samples=k), steps=3000,
                            seed=seed), val)
            for name, k in (("elbo", 1), ("iwae", 16))
        }  # fmt: skip
        print(f"seed {seed}: " + ", ".join(
            f"K = {k}: evidence {row['evidence']:.2f}, ELBO {row['elbo']:.2f}"
            for k, row in found.items()
        ))  # fmt: skip


def beta() -> None:
    data, learned, val = digits()
    warm = Objective(beta_steps=1000)
    fit = partial(train, data, steps=2000)
    rows = {f"beta {b:g}": fit(replace(warm, beta=b)) for b in (0.0, 0.5, 1.0, 4.0)}
    point = partial(MLP, hidden_dims=(64,), head=DeltaHead)
    rows["autoencoder"] = fit(replace(warm, beta=0.0), encoder=point)
    rows["free bits 3"] = fit(replace(warm, free_bits=3.0))
    rows["KL target 3"] = fit(replace(warm, beta=10.0, kl_target=3.0))
    for name, model in rows.items():
        found = scores(model, val, learned)
        print(f"{name:12}" + "".join(f"  {key} {value:9.3f}" for key, value in found.items()))


if __name__ == "__main__":
    for experiment in sys.argv[1:] or ["gradients", "reinforce", "iwae", "beta"]:
        print(f"--- {experiment}")
        {"gradients": gradients, "reinforce": reinforce, "iwae": iwae, "beta": beta}[experiment]()
