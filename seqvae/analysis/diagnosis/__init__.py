"""What went wrong in a fit, in plain words, with the setting to change.

Pure functions of what a fit left behind: its history, a ``Checkup`` of the fitted model, and some
settings. A finding is told only where numbers leave little doubt, so a healthy run has none. Of the
settings that may help those are told which the config of the fit has, and which can still move.

============================  ==================================================  =================
finding                       meaning                                             setting
============================  ==================================================  =================
``constant_channels``         a channel has one value in all training trials      data
``silent_neurons``            neurons without a spike in training                 data
``equal_channels``            channels that are equal in every bin                data
``far_offset``                channels further from 0 than single precision bears data
``gaussian_counts``           small counts, seen as Gaussian                      observation
``many_zeros``                a Gaussian, where a quarter of the values is zero   observation
``learning_rate_too_high``    the training likelihood fell far below the mean     optimizer.lr
                              rate's, the bound lost half of what it had gained,
                              or gradients were not finite
``ramps_unfinished``          training ended while weights of the bound rose      max_epochs,
                                                                                  beta_steps
``posterior_collapse``        latents are not used                                beta, free_bits,
                                                                                  ridge
``overfitting``               what training trials gain over the mean rate, most  dropout, ridge,
                              of it others do not; or held-in neurons are told,   weight_decay
                              held-out ones are not
``still_improving``           the bound rose to the end                           max_epochs,
                                                                                  patience
``learning_rate_at_floor``    likewise, at the least learning rate there is       schedule.min_lr
``bound_still_rising``        EM ended at its last iteration, with more to gain   max_iterations
``worse_than_mean_rate``      the model predicts no better than a constant        size, max_epochs
``worse_than_smoothing``      nor than smoothing + GLM                            model
``overdispersed_counts``      counts vary more than a Poisson model can           observation
``unused_states``             discrete states that hold nowhere, or tell nothing  num_states
``unstable_dynamics``         linear dynamics that grow within a trial            latent_dim
============================  ==================================================  =================

A controller that is not used (``inferred_inputs`` of KL 0) is none: autonomous data need no inputs.
Nor are unused dimensions of a latent, by which a model says that fewer would do; ``evaluate`` tells
them as ``active_units``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqvae.analysis.diagnosis.activity import gaussian_of_other_data, odd_channel_findings
from seqvae.analysis.diagnosis.cures import Cure as Cure
from seqvae.analysis.diagnosis.cures import FitConfig as FitConfig
from seqvae.analysis.diagnosis.facts import FEWEST_TRIALS as FEWEST_TRIALS
from seqvae.analysis.diagnosis.facts import Checkup as Checkup
from seqvae.analysis.diagnosis.facts import Finding as Finding
from seqvae.analysis.diagnosis.facts import Gain as Gain
from seqvae.analysis.diagnosis.facts import OddChannels as OddChannels
from seqvae.analysis.diagnosis.facts import Settings as Settings
from seqvae.analysis.diagnosis.facts import Spread as Spread
from seqvae.analysis.diagnosis.facts import Use as Use
from seqvae.analysis.diagnosis.fit import (
    overdispersed_counts,
    overfitting,
    posterior_collapse,
    unstable_dynamics,
    unused_states,
    worse_than_mean_rate,
    worse_than_smoothing,
)
from seqvae.analysis.diagnosis.training import bound_rising, improvement, ramps
from seqvae.analysis.diagnosis.training import idle as idle
from seqvae.analysis.diagnosis.training import learning_rate as learning_rate
from seqvae.analysis.diagnosis.training import passes as passes


def diagnose(
    history: Sequence[Mapping[str, float | int]],
    checkup: Checkup,
    settings: Settings,
    scores: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Return what is wrong with a fit, causes first; what follows from a cause is not told.

    Args:
        history: the rows of ``history.csv``; what a row does not have is not in it. Of a fit that
            was refitted both passes are looked at for trouble, and the first for all else.
        checkup: what the fitted model does on its data.
        settings: what the fit was told.
        scores: what ``evaluate`` answers, baselines included, if known.

    Returns:
        Findings with all settings that may help; ``Finding.fitting`` leaves those of a fit.
    """
    history, second = passes(history)
    odd, misread = odd_channel_findings(checkup), gaussian_of_other_data(checkup)
    causes = odd + misread
    if misread or checkup.channels.far or checkup.channels.constant:
        return causes + ramps(history, settings)  # all else is measured by the mean rate
    trouble = learning_rate(history, checkup.null, settings)
    trouble = trouble or learning_rate(second, checkup.null, settings) or ramps(history, settings)
    if not trouble:
        trouble = posterior_collapse(checkup, settings) or overfitting(checkup, settings)
    if not trouble:
        trouble = improvement(history, checkup, settings)
        trouble = trouble or bound_rising(history, checkup, settings)
        trouble = trouble or worse_than_mean_rate(history, checkup, settings)
        trouble = trouble or worse_than_smoothing(scores, checkup)
        trouble += overdispersed_counts(checkup) + unused_states(checkup)
        trouble += unstable_dynamics(checkup)
    return causes + trouble
