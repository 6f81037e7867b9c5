"""What went wrong in a fit, in plain words, with the setting to change.

Pure functions of what a fit left behind: its history, a ``Checkup`` of the fitted model, and some
settings. A finding is told only where numbers leave little doubt, so a healthy run has none.

============================  ==================================================  =================
finding                       meaning                                             setting
============================  ==================================================  =================
``learning_rate_too_high``    the training likelihood fell far below the mean     optimizer.lr
                              rate's, the bound lost half of what it had gained,
                              or gradients were not finite
``ramps_unfinished``          training ended while weights of the bound rose      max_epochs,
                                                                                  beta_steps
``still_improving``           the bound rose to the end                           max_epochs
``learning_rate_at_floor``    likewise, at the least learning rate there is       schedule.min_lr
``bound_still_rising``        EM ended at its last iteration, with more to gain   max_iterations
``posterior_collapse``        latents are not used                                beta, free_bits
``overfitting``               what training trials gain over the mean rate, most  weight_decay,
                              of it others do not; or held-in neurons are told,   dropout
                              held-out ones are not
``overdispersed_counts``      counts vary more than a Poisson model can           observation
``gaussian_counts``           small counts, seen as Gaussian                      observation
``many_zeros``                a Gaussian, where a quarter of the values is zero   data, observation
``worse_than_mean_rate``      the model predicts no better than a constant        model
``worse_than_smoothing``      nor than smoothing + GLM                            model
``unstable_dynamics``         linear dynamics that grow within a trial            latent_dim
``silent_neurons``            neurons without a spike in training                 data
============================  ==================================================  =================

A controller that is not used (``inferred_inputs`` of KL 0) is none: autonomous data need no inputs.
Nor are unused dimensions of a latent, by which a model says that fewer would do; ``evaluate`` tells
them as ``active_units``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqvae.analysis.diagnosis.facts import Checkup as Checkup
from seqvae.analysis.diagnosis.facts import Finding as Finding
from seqvae.analysis.diagnosis.facts import Gain as Gain
from seqvae.analysis.diagnosis.facts import Settings as Settings
from seqvae.analysis.diagnosis.facts import Spread as Spread
from seqvae.analysis.diagnosis.facts import Use as Use
from seqvae.analysis.diagnosis.fit import (
    overfitting,
    posterior_collapse,
    silent_neurons,
    unstable_dynamics,
    worse_than_mean_rate,
    worse_than_smoothing,
    wrong_likelihood,
)
from seqvae.analysis.diagnosis.training import bound_rising, improvement, ramps
from seqvae.analysis.diagnosis.training import idle as idle
from seqvae.analysis.diagnosis.training import learning_rate as learning_rate


def diagnose(
    history: Sequence[Mapping[str, float | int]],
    checkup: Checkup,
    settings: Settings,
    scores: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Return what is wrong with a fit, causes first; what follows from a cause is not told.

    Args:
        history: the rows of ``history.csv``; what a row does not have is not in it.
        checkup: what the fitted model does on its data.
        settings: what the fit was told.
        scores: what ``evaluate`` answers, baselines included, if known.
    """
    trouble = learning_rate(history, checkup.null, settings) or ramps(history, settings)
    if not trouble:
        trouble = posterior_collapse(checkup, settings) or overfitting(checkup)
    if not trouble:
        trouble = improvement(history, checkup, settings) + worse_than_mean_rate(checkup, settings)
        trouble = trouble or bound_rising(history, checkup, settings) + worse_than_smoothing(scores)
        trouble += wrong_likelihood(checkup)
    return [*trouble, *unstable_dynamics(checkup), *silent_neurons(checkup)]
