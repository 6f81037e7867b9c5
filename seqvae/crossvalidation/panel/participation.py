"""The participation ratio of the covariance that neurons share over time, without bias."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

PAIRINGS = 20
LEAST_TRIALS = 12
SIGNS = 200
CHANCE = 0.05
"""At most, that random signs raise tr C^2 as far where a covariance is seen."""

MOST_GROUPS = 64
"""Of trials, each of which stands for one: a covariance of each is held in memory."""


class Participation(NamedTuple):
    """A participation ratio.

    Attributes:
        dimension: (tr C)^2 / tr C^2; 0 where C is not told from 0.
        squared_trace: estimate of (tr C)^2.
        trace_of_square: estimate of tr C^2.
        chance: how often random signs of the covariances of pairs raise the latter as far.
    """

    dimension: float
    squared_trace: float
    trace_of_square: float
    chance: float


def participation_ratio(
    activity: Float[np.ndarray, "trial time neuron"], *, lag: int = 1, seed: int = 0
) -> Participation:
    """Return (tr C)^2 / tr C^2 of the covariance C between neighbouring bins.

        C_nm = cov(x_tn, x_(t+lag)m), made symmetric

    PR = (sum l_i)^2 / sum l_i^2 of the eigenvalues of a covariance counts those that matter: d for
    d equal ones, 1 where one is all [Rajan, Abbott & Sompolinsky 2010; Gao et al. 2017]. Plugging
    in the covariance of a sample is biased: few trials raise tr C^2, and noise on the diagonal
    raises the ratio up to the number of neurons. As in Chun, Canatar, Chung & Lee 2025
    (arXiv:2509.26560) numerator and denominator are estimated each without bias, as products of
    estimates from disjoint trials. Trials in pairs (r, s) give each

        C_p = (L_r + L_s) / 2 - (a_r b_s' + a_s b_r') / 2,  L_r = mean_t x_rt x_r(t+lag)'

    with a_r, b_r the means of what enters L_r from the left and right, so that E C_p = C, and ::

        (tr C)^2 <- mean over p != q of tr C_p tr C_q,   tr C^2 <- mean over p != q of tr C_p C_q

    averaged over random pairings; of more than 64 trials groups stand for trials. Both are
    unbiased; their ratio is so to first order only. With ``lag`` 1 noise that is independent
    between bins, Poisson or not, is in no entry of C, not on the diagonal either, and each latent
    counts by the variance that it keeps for a bin; ``lag`` 0 is the covariance within a bin, noise
    and all.

    It assumes independent trials. Latents that forget themselves within a bin are not seen, the
    private slow noise of a neuron is a dimension as any other, and so is smoothing. It is no count
    of latents: unequal ones count for less than one each.

    Args:
        activity: NaN = missing; of a bin all neurons are seen, or it does not count.
        lag: bins between both sides of the covariance.
        seed: of the pairings.

    Returns:
        The ratio; 0 where random signs of the C_p, which leave nothing of C, raise tr C^2 as far in
        more than 5 of 100 draws; NaN with fewer than 12 trials of two bins.
    """
    whole = np.isfinite(activity).all(axis=2)
    both = whole[:, : whole.shape[1] - lag] & whole[:, lag:]
    used = both.any(axis=1)
    if used.sum() < LEAST_TRIALS:
        return Participation(np.nan, np.nan, np.nan, np.nan)
    shifted = activity[used].astype(np.float64)
    shifted = shifted - shifted[whole[used]].mean(axis=0)  # which the estimate does not depend on
    mask = both[used][..., None]
    left = np.where(mask, shifted[:, : shifted.shape[1] - lag], 0.0)
    right = np.where(mask, shifted[:, lag:], 0.0)
    groups = [slice(first, None, MOST_GROUPS) for first in range(min(len(mask), MOST_GROUPS))]
    number = np.array([mask[group].sum() for group in groups])[:, None]
    moment = np.stack([
        np.einsum("rtn,rtm->nm", left[group], right[group], optimize=True) for group in groups
    ]) / number[..., None]  # fmt: skip
    left = np.stack([left[group].sum(axis=(0, 1)) for group in groups]) / number
    right = np.stack([right[group].sum(axis=(0, 1)) for group in groups]) / number
    generator = np.random.default_rng(seed)
    pairings = [_paired(moment, left, right, generator) for _ in range(PAIRINGS)]
    squared_trace, trace_of_square, chance = np.mean(pairings, axis=0)
    is_seen = chance <= CHANCE and trace_of_square > 0
    ratio = max(squared_trace, 0.0) / trace_of_square if is_seen else 0.0
    return Participation(float(ratio), float(squared_trace), float(trace_of_square), float(chance))


def _paired(
    moment: Float[np.ndarray, "group neuron neuron"],
    left: Float[np.ndarray, "group neuron"],
    right: Float[np.ndarray, "group neuron"],
    generator: np.random.Generator,
) -> tuple[float, float, float]:
    """Return (tr C)^2, tr C^2, and how often random signs of C_p raise it, from one pairing."""
    order = generator.permutation(len(moment))
    ones, others = order[: len(order) // 2 * 2].reshape(-1, 2).T
    product = left[ones, :, None] * right[others, None] + left[others, :, None] * right[ones, None]
    covariances = (moment[ones] + moment[others] - product) / 2
    covariances = (covariances + covariances.transpose(0, 2, 1)) / 2
    traces = np.trace(covariances, axis1=1, axis2=2)
    flat = covariances.reshape(len(covariances), -1)
    between = flat @ flat.T  # tr C_p C_q
    np.fill_diagonal(between, 0.0)
    number = len(between) * (len(between) - 1)
    signs = generator.choice([-1.0, 1.0], (SIGNS, len(between)))
    random = np.einsum("sp,pq,sq->s", signs, between, signs, optimize=True)
    chance = (1 + (random >= between.sum()).sum()) / (1 + SIGNS)
    squared_trace = (traces.sum() ** 2 - (traces**2).sum()) / number
    return float(squared_trace), float(between.sum() / number), float(chance)
