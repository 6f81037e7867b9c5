"""Reference posteriors by sampling: the No-U-Turn sampler on the latents of one trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqvae.analysis.audit.joint import JointDensity, frozen_model
from seqvae.analysis.posterior import latent_moments
from seqvae.distributions import GaussianMarkovChain
from seqvae.distributions.divergence import Joint, bare, scale_tril
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.objectives import has_elbo
from seqvae.types import Batch, Latent

LARGEST_ROOT = 2000
"""Entries of a path up to which the root of its covariance is kept as one matrix, for speed."""


class Reference(NamedTuple):
    """Draws from p(z | x) of one trial, and whether they are to be trusted.

    Attributes:
        draws: (chain, draw, ...) of each latent by name.
        r_hat: largest split R-hat of any latent; 1 where the chains agree, below 1.01 is good.
        effective_size: smallest effective number of draws of any latent.
        num_divergent: draws after a diverged trajectory.
    """

    draws: dict[str, np.ndarray]
    r_hat: float
    effective_size: float
    num_divergent: int


def reference_posterior(
    model: Model,
    batch: Batch,
    *,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 2,
    seed: int = 0,
) -> Reference:
    """Draw from the posterior of one trial's latents by NUTS (Hoffman & Gelman 2014), with Pyro.

    It knows the model's joint density only. The model's own posterior is where the chains start,
    the first at its mean, the others at draws from it, and gives the coordinates: z = mean + L v
    with L L' its covariance, exactly for a Gaussian and else diagonal, so that NUTS sees something
    near N(0, I) where that posterior is good. What is wrong with it makes sampling slower, but
    not wrong.

    Args:
        model: a model that answers ``emission_given``.
        batch: one trial, as ``what_is_seen`` gives it.
        num_samples: draws of each chain.
        num_warmup: draws before, to adapt step size and scales.
        num_chains: chains, one after the other.
        seed: of the draws.

    Raises:
        InputError: if Pyro or ArviZ are not there, or the posterior is a point.
    """
    mcmc = require("pyro.infer.mcmc")
    with frozen_model(model, seed=seed):
        batch = batch.to(model.null_counts)
        with torch.no_grad():
            output = model(batch, 200)
        if not has_elbo(output):
            raise InputError("the posterior of this model is a point; there is nothing to audit")
        log_joint = JointDensity(model, batch)
        maps = {name: _coordinates(latent) for name, latent in output.latents.items()}

        def latents(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: to_latent(values[name][None, None]) for name, to_latent in maps.items()}

        def potential(values: dict[str, Tensor]) -> Tensor:
            return -log_joint(latents(values))[0, 0]

        chains: list[dict[str, np.ndarray]] = []
        num_divergent = 0
        for chain in range(num_chains):
            start = {
                name: torch.randn_like(latent.sample[0, 0]) * float(chain > 0)
                for name, latent in output.latents.items()
            }
            kernel = mcmc.NUTS(potential_fn=potential, max_tree_depth=8)
            sampler = mcmc.MCMC(
                kernel,
                num_samples=num_samples,
                warmup_steps=num_warmup,
                initial_params=start,
                disable_progbar=True,
            )
            sampler.run()
            samples = sampler.get_samples()
            with torch.no_grad():
                chains.append(
                    {
                        name: to_latent(samples[name][:, None])[:, 0].cpu().numpy()
                        for name, to_latent in maps.items()
                    }
                )
            divergent = sampler.diagnostics()["divergences"]
            num_divergent += sum(len(steps) for steps in divergent.values())
    draws = {name: np.stack([chain[name] for chain in chains]) for name in maps}
    return Reference(draws, *_diagnostics(draws), num_divergent)


def require(module: str) -> ModuleType:
    """Import a module of the optional libraries.

    Raises:
        InputError: naming what to install.
    """
    from importlib import import_module

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ArviZ tells of its next version once a day
            return import_module(module)
    except ImportError as error:
        raise InputError(
            f"an audit needs {module.split('.')[0]}, which is not installed; "
            "pip install 'seqvae[audit]'"
        ) from error


def _coordinates(latent: Latent) -> Callable[[Tensor], Tensor]:
    """Return the map from v to z = mean + L v, for v (sample, 1, ...)."""
    posterior = bare(latent.posterior)
    if isinstance(posterior, GaussianMarkovChain):
        size = posterior.mean[0].numel()
        if size > LARGEST_ROOT:
            return lambda v: posterior.mean + posterior.factor.draw(v)
        identity = torch.eye(size).to(posterior.mean).unflatten(1, posterior.mean.shape[1:])
        root = posterior.factor.draw(identity[:, None]).reshape(size, size)
        return lambda v: posterior.mean + (v.flatten(2) @ root).reshape(v.shape)
    if isinstance(posterior, Joint):
        scale = scale_tril(posterior)
        return lambda v: posterior.mean + (scale @ v[..., None])[..., 0]
    mean, sd = latent_moments(latent)
    return lambda v: mean + sd * v


def _diagnostics(draws: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest R-hat and the smallest effective size."""
    arviz: Any = require("arviz")
    flat = {name: values.reshape(*values.shape[:2], -1) for name, values in draws.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = arviz.convert_to_dataset(flat)
        r_hat = arviz.rhat(table) if len(next(iter(draws.values()))) > 1 else {}
        size = arviz.ess(table)
    largest = max((float(r_hat[name].max()) for name in r_hat), default=float("nan"))
    return largest, min(float(size[name].min()) for name in size)
