"""What a diagnosis says of fits with a planted fault, and of healthy ones.

    python benchmarks/advice.py                      # all, about ten minutes on one core
    python benchmarks/advice.py --models VAE PCA     # some

A row for each fit: the finding that was planted (- for a healthy fit), the findings, the settings
that are named, and a verdict: ``right``; ``missed``; ``alarm``, a finding that was not planted;
``lacks``, a setting that the fit does not have. The last lines count them.
"""

from __future__ import annotations

import argparse
import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from pytorch_lightning import Trainer
from torch.optim import AdamW

from seqvae import (
    EM,
    FLDS,
    PCA,
    VAE,
    ClosedForm,
    FactorAnalysis,
    GradientLearner,
    LinearDynamics,
    NeuralData,
    SequentialVAE,
    SwitchingEM,
    SwitchingLinearDynamics,
    fit,
)
from seqvae.analysis.diagnosis import FitConfig
from seqvae.data import Recording
from seqvae.data.sources import Arrays, Lorenz, SimulatedLinearDynamics
from seqvae.errors import InputError
from seqvae.objectives import Objective
from seqvae.observations import (
    Bernoulli,
    Gaussian,
    NegativeBinomial,
    ZeroInflatedGamma,
)
from seqvae.verbs.advice import advice, sections

Change = Callable[[np.ndarray, Recording, np.random.Generator], np.ndarray]


def recording(change: Change | None = None, *, trials: int = 70, seed: int = 0) -> NeuralData:
    """Return Lorenz counts, or what a change makes of them; 30 trials more to validate."""
    source = Lorenz(num_trials=trials + 30, num_val=30, num_time_bins=40, num_neurons=20,
                    num_heldout=4, seed=seed)  # fmt: skip
    known = source.load()
    if change is not None:
        values = change(known.activity.copy(), known, np.random.default_rng(seed))
        known = replace(known, activity=values.astype(np.float32), rates=None)
    return NeuralData(Arrays(known), batch_size=24)


def expected(known: Recording) -> np.ndarray:
    """Return expected counts of each bin."""
    assert known.rates is not None
    assert known.bin_width is not None
    return np.asarray(known.rates * known.bin_width)


def dispersed(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return counts of variance m + m^2."""
    mean = 3 * expected(known)
    return rng.poisson(mean * rng.gamma(1.0, 1.0, mean.shape))


def real(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return log rates with noise."""
    log_rates = np.log(expected(known))
    return log_rates + 0.5 * rng.normal(size=log_rates.shape)


def dead(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return real values, a channel of which is constant."""
    values = real(counts, known, rng)
    values[..., 3] = 7.0
    return values


def binary(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return whether there is a spike."""
    return counts > 0


def events(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return zeros and events of real size."""
    return counts * rng.gamma(4.0, 0.5, counts.shape)


def silent(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return counts, of a neuron none."""
    counts[..., 2] = 0
    return counts


def twins(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return counts, a neuron twice."""
    counts[..., 5] = counts[..., 1]
    return counts


def noise(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return counts that have nothing in common."""
    return rng.poisson(0.3, counts.shape)


def growing(counts: np.ndarray, known: Recording, rng: np.random.Generator) -> np.ndarray:
    """Return real values that grow within a trial."""
    start = rng.normal(size=(len(counts), 1, 2)) * 1.08 ** np.arange(counts.shape[1])[:, None]
    values = start @ rng.normal(size=(2, counts.shape[2]))
    return values + 0.5 * rng.normal(size=values.shape)


def one_trial() -> NeuralData:
    """Return a single trial."""
    activity = recording().source.load().activity[:1]
    return NeuralData(Arrays(activity, bin_width=0.01), val_fraction=0)


def switching(seed: int = 0, states: int = 2) -> NeuralData:
    """Return real values of linear dynamics that switch, or do not."""
    source = SimulatedLinearDynamics(num_trials=60, num_val=20, num_time_bins=60, num_neurons=15,
                                     latent_dim=2, num_states=states, observation="gaussian",
                                     seed=seed)  # fmt: skip
    return NeuralData(source)


def trained(epochs: int, **trainer: Any) -> GradientLearner:
    """Return a learner by gradients."""
    make = partial(Trainer, accelerator="cpu", max_epochs=epochs, check_val_every_n_epoch=1,
                   **trainer)  # fmt: skip
    return GradientLearner(make, progress=False)


def adamw(lr: float, weight_decay: float = 0.1) -> Any:
    """Return a factory of the optimiser."""
    return partial(AdamW, lr=lr, weight_decay=weight_decay)


class Case(NamedTuple):
    """A fit.

    Attributes:
        name: what is planted, in words.
        planted: the finding; None: healthy.
        data: makes the data.
        model: its factory.
        learner: how it is learned.
        also: findings that may be told, too.
    """

    name: str
    planted: str | None
    data: Callable[[], NeuralData]
    model: Any
    learner: Any
    also: tuple[str, ...] = ()


FAST = Objective(beta_steps=60)
NOW = Objective(beta_steps=0)


def by_gradient(model: Any, epochs: int, *, high: float) -> Iterator[Case]:
    """Yield what is tried with each model that is learned by gradients."""
    known = recording
    yield Case("healthy", None, known, model, trained(epochs))
    yield Case("healthy, other data", None, partial(known, seed=5), model, trained(epochs))
    for word, change, kind in (("NB", dispersed, NegativeBinomial), ("Gaussian", real, Gaussian),
                               ("Bernoulli", binary, Bernoulli),
                               ("ZIG", events, ZeroInflatedGamma)):  # fmt: skip
        yield Case(f"healthy {word}", None, partial(known, change),
                   partial(model, observation=kind), trained(epochs))  # fmt: skip
    yield Case("lr too high", "learning_rate_too_high", known,
               partial(model, optimizer=adamw(high)), trained(15))  # fmt: skip
    strong = partial(model, objective=Objective(beta=50.0, beta_steps=0))
    yield Case("beta 50", "posterior_collapse", known, strong, trained(40))
    yield Case("short warm-up", "ramps_unfinished", known,
               partial(model, objective=Objective(beta_steps=3000)), trained(20))  # fmt: skip
    yield Case("few epochs", "still_improving", known,
               partial(model, objective=NOW, optimizer=adamw(5e-4)), trained(14))  # fmt: skip
    yield Case("few steps", "still_improving", known,
               partial(model, objective=NOW, optimizer=adamw(5e-4)),
               trained(10_000, max_steps=42))  # fmt: skip
    yield Case("overdispersed", "overdispersed_counts", partial(known, dispersed), model,
               trained(epochs), ("overfitting",))  # fmt: skip
    yield Case("counts as Gaussian", "gaussian_counts", known,
               partial(model, observation=Gaussian), trained(20))  # fmt: skip
    yield Case("zeros as Gaussian", "many_zeros", partial(known, events),
               partial(model, observation=Gaussian), trained(20))  # fmt: skip
    yield Case("dead channel", "constant_channels", partial(known, dead),
               partial(model, observation=Gaussian), trained(epochs))  # fmt: skip
    yield Case("silent neuron", "silent_neurons", partial(known, silent), model, trained(epochs))
    yield Case("twins", "equal_channels", partial(known, twins), model, trained(epochs))
    yield Case("one trial", None, one_trial, partial(model, objective=NOW), trained(20))


def linear(model: Any, learner: Any, *, counts_too: bool = True) -> Iterator[Case]:
    """Yield what is tried with each model that is not learned by gradients."""
    known, gaussian = recording, partial(model, observation=Gaussian)
    yield Case("healthy", None, known, model, learner)
    yield Case("healthy, other data", None, partial(known, seed=5), model, learner)
    yield Case("healthy Gaussian", None, partial(known, real), gaussian, learner)
    yield Case("overdispersed", "overdispersed_counts", partial(known, dispersed), model, learner)
    yield Case("counts as Gaussian", "gaussian_counts", known, gaussian, learner)
    yield Case("zeros as Gaussian", "many_zeros", partial(known, events), gaussian, learner)
    yield Case("dead channel", "constant_channels", partial(known, dead), gaussian, learner)
    yield Case("silent neuron", "silent_neurons", partial(known, silent), model, learner)
    yield Case("twins", "equal_channels", partial(known, twins), model, learner)
    yield Case("one trial", None, one_trial, model, learner, ("bound_still_rising",))


def cases() -> dict[str, list[Case]]:
    """Return the fits by model."""
    vae = partial(VAE, latent_dim=3, objective=FAST)
    svae = partial(SequentialVAE, factor_dim=4, generator_dim=24, initial_condition_dim=8,
                   inferred_input_dim=1, controller_dim=12, controller_encoder_dim=12,
                   objective=FAST)  # fmt: skip
    flds = partial(FLDS, latent_dim=3, objective=FAST)
    lds, slds = (
        partial(LinearDynamics, latent_dim=3),
        partial(SwitchingLinearDynamics, latent_dim=3, num_states=1),
    )
    em, switching_em = EM(progress=False), SwitchingEM(progress=False, num_starts=1)
    free = {"dropout": 0.0, "optimizer": adamw(4e-3, 0.0)}
    few = partial(recording, trials=5)
    worse = "worse_than_mean_rate"
    grown = partial(recording, growing)
    two = partial(SwitchingLinearDynamics, latent_dim=2, observation=Gaussian)
    wide = partial(slds, latent_dim=2, observation=Gaussian, num_states=6)
    return {
        "VAE": [
            *by_gradient(vae, 60, high=0.5),
            Case("5 trials", "overfitting", few, partial(vae, latent_dim=8, **free), trained(400)),
        ],
        "SequentialVAE": [*by_gradient(svae, 150, high=0.3)],
        "FLDS": [
            *by_gradient(flds, 40, high=1.0),
            Case("5 trials", "overfitting", few, partial(flds, latent_dim=8, **free), trained(400)),
        ],
        "LinearDynamics": [
            *linear(lds, em),
            Case("stopped early", "bound_still_rising", recording, partial(lds, latent_dim=8),
                 EM(max_iterations=5, progress=False)),
            Case("5 trials", "overfitting", few, partial(lds, latent_dim=12), em),
            Case("nothing shared", worse, partial(recording, noise), partial(lds, latent_dim=10),
                 EM(progress=False, ridge=0.0), ("overfitting", "posterior_collapse")),
            Case("growing", "unstable_dynamics", grown,
                 partial(lds, latent_dim=2, observation=Gaussian), em),
        ],
        "SwitchingLinearDynamics": [
            *linear(slds, switching_em),
            Case("healthy, 2 states", None, switching, two, SwitchingEM(progress=False)),
            Case("stopped early", "bound_still_rising", recording, partial(slds, latent_dim=8),
                 SwitchingEM(max_iterations=5, progress=False, num_starts=1)),
            Case("6 states for 1", "unused_states", partial(switching, states=1), wide,
                 SwitchingEM(progress=False, num_starts=1)),
        ],
        "FactorAnalysis": [
            *linear(partial(FactorAnalysis, latent_dim=3), ClosedForm()),
            Case("nothing shared", worse, partial(recording, noise),
                 partial(FactorAnalysis, latent_dim=10), ClosedForm(ridge=0.0),
                 ("overfitting", "posterior_collapse")),
        ],
        "PCA": [
            *linear(partial(PCA, latent_dim=3), ClosedForm()),
            Case("5 trials", "overfitting", few, partial(PCA, latent_dim=12), ClosedForm(ridge=0.0),
                 (worse,)),
        ],
    }  # fmt: skip


def verdict(case: Case, names: list[str], *, lacks: bool) -> str:
    """Return right, missed, alarm or lacks."""
    if lacks:
        return "lacks"
    if case.planted is not None and case.planted not in names:
        return "right" if set(names) & set(case.also) else "missed"
    return "alarm" if set(names) - {case.planted, *case.also} else "right"


def main() -> None:
    """Fit, ask for advice, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(cases()))
    parser.add_argument("--cases", nargs="+", help="names; all")
    chosen, named = parser.parse_args().models, parser.parse_args().cases
    logging.getLogger("seqvae").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for name in chosen:
        for case in cases()[name]:
            if named and case.name not in named:
                continue
            began = time.monotonic()
            try:
                run = fit(case.data(), case.model, case.learner, in_memory=True)
            except InputError as error:
                words = f"refused: {error}"
                is_right = case.planted == "learning_rate_too_high" and ".lr" in words
                counts["right" if is_right else "refused"] += 1
                print(f"{name:24}{case.name:22}{words}", flush=True)
                continue
            findings = advice(run, run.model(), run.data())
            config = FitConfig(run.config, run.spec, sections)
            told = " | ".join(finding.setting for finding in findings)
            lacks = False
            for setting in re.findall(r"(?:model|learner|data)\.[a-z_.]*[a-z_]", told):
                try:
                    config.value(setting)
                except InputError:
                    lacks = True
            names = [finding.name for finding in findings]
            word = verdict(case, names, lacks=lacks)
            counts[word] += 1
            seconds = time.monotonic() - began
            print(f"{name:24}{case.name:22}{case.planted or '-':24}{word:8}{seconds:5.0f} s  "
                  f"{', '.join(names) or '-'}: {told}", flush=True)  # fmt: skip
    print(f"{sum(counts.values())} fits: {dict(counts)}")


if __name__ == "__main__":
    main()
