"""How score and dimension grow with trials: learning curves, and what more trials would bring."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from seqvae.crossvalidation.choice import Rule, allowed_loss, choose
from seqvae.crossvalidation.table import Grid

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.9
TIMES = (2, 4)
"""How many times the trials there are that is looked ahead."""

LAW = "s(n) = s_inf - a / n"
DRAWS = 2000
CURVE_POINTS = 25
_ENDS = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)


class Curve(NamedTuple):
    """Scores of one model at growing numbers of trials, in the unit of the score.

    Attributes:
        trials: of the recording that each fraction stands for, ascending.
        scores: summed over the cells they are the score.
        gains: the same less the mean rate's.
        dims: one for each column, the mean rate first.
        rows: the trial fold of each cell.
    """

    trials: Float[np.ndarray, " fraction"]
    scores: Float[np.ndarray, "fraction cell dim"]
    gains: Float[np.ndarray, "fraction cell dim"]
    dims: list[int]
    rows: Int[np.ndarray, " cell"]

    @classmethod
    def of(
        cls, tables: Sequence[pd.DataFrame], name: str, *, trials: Sequence[float], unit: str
    ) -> Curve | None:
        """Gather a model's scores from the table of each fraction; None: no size has them all."""
        grids = [Grid(table, name) for table in tables]
        cells = list(grids[-1].cells.index)
        if any(list(grid.cells.index) != cells for grid in grids):
            return None
        gains = np.stack([grid.scores / grid.unit_size(unit) for grid in grids])
        scores = gains
        if unit == "log_likelihood":  # not a gain, but the log-likelihood itself
            null = [grid.cells["log_likelihood_sum"] / grid.unit_size(unit) for grid in grids]
            scores = gains + np.stack(null)[:, :, None]
        whole = np.asarray(np.isfinite(gains).all(axis=(0, 1)))
        if not whole[1:].any():
            return None
        dims = [dim for dim, is_there in zip(grids[-1].dims, whole, strict=True) if is_there]
        return cls(np.array(trials), scores[..., whole], gains[..., whole], dims, grids[-1].rows)

    def ahead(
        self, values: Float[np.ndarray, "fraction cell dim"], trials: float
    ) -> Float[np.ndarray, "fold dim"]:
        """Return what the law tells of a number of trials, summed over the cells of each fold.

        Least squares, weighted by trials squared: the error of a fit, and with it that of its
        score, falls as fast as what it still lacks. For a known exponent the law is linear, so
        each trial fold has a curve of its own, and their mean is the curve of the mean.
        """
        inverse = 1 / self.trials
        design = np.stack([np.ones_like(inverse), -inverse], axis=1) * self.trials[:, None]
        weights = np.array([1.0, -1 / trials]) @ np.linalg.pinv(design) * self.trials
        each = np.einsum("f,fcd->cd", weights, values)
        folds = np.unique(self.rows)
        return np.stack([each[self.rows == fold].sum(axis=0) for fold in folds])


class Outlook(NamedTuple):
    """What a recording of some number of trials is expected to answer, each value of a draw.

    Attributes:
        score: of the size that it would choose.
        gain: the same less the score of the size that is chosen of all trials there are.
        dim: that it would choose.
    """

    score: Float[np.ndarray, " draw"]
    gain: Float[np.ndarray, " draw"]
    dim: Int[np.ndarray, " draw"]


def outlook(curve: Curve, trials: float, *, rule: Rule, chosen: int) -> Outlook:
    """Draw what another cross-validation would answer with a number of trials.

    The law is extrapolated in each trial fold. A draw moves the sum over folds by an error of
    Student's t with R - 1 degrees of freedom, enlarged for shared training rows as in
    ``intervals``, the same for all sizes; the differences between sizes are then seen with the
    error that their tests have among so many trials, and the rule chooses.

    Args:
        curve: of the model.
        trials: how many.
        rule: how a dimension is chosen.
        chosen: of all trials there are.
    """
    generator = np.random.default_rng(0)
    score, gain = curve.ahead(curve.scores, trials), curve.ahead(curve.gains, trials)
    now = _by_fold(curve.scores[-1], curve.rows)[:, curve.dims.index(chosen)]
    number, whole = len(score), curve.gains[-1]
    spread = math.sqrt(number / (number - 1) * (1 + number / (number - 1)))
    student = np.sqrt((number - 1) / generator.chisquare(number - 1, DRAWS))
    error = spread * student[:, None] * generator.standard_normal((DRAWS, number))
    tests = math.sqrt(number / (number - 1) * curve.trials[-1] / trials)
    noise = tests * generator.standard_normal((DRAWS, number))
    of_tests = _by_fold(whole, curve.rows)
    seen = gain.sum(axis=0) + error @ _centred(gain) + noise @ _centred(of_tests)
    winners = seen.argmax(axis=1)
    fewer = math.sqrt(curve.trials[-1] / trials)
    allowed = np.stack(
        [allowed_loss(whole, w, rule, error_scale=fewer) for w in range(whole.shape[1])]
    )
    loss = np.take_along_axis(seen, winners[:, None], axis=1) - seen
    places = (loss <= allowed[winners]).argmax(axis=1)
    scores = score.sum(axis=0) + error @ _centred(score)
    gains = scores - now.sum() - error @ _centred(now[:, None])
    pick = np.arange(DRAWS)
    return Outlook(scores[pick, places], gains[pick, places], np.array(curve.dims)[places])


def growth(
    tables: Sequence[pd.DataFrame],
    summary: Mapping[str, Any],
    *,
    fractions: Sequence[float],
    num_trials: int,
) -> dict[str, Any]:
    """Tell how scores and dimensions grew with trials, and what two and four times would bring.

    Args:
        tables: the scores at each fraction, the whole last.
        summary: of the whole.
        fractions: of the trials.
        num_trials: of the recording.

    Returns:
        ``trials``: what a recording of the same folds would hold for each fraction; ``law`` and
        ``level`` of the bands; ``models``: of each the ``chosen_dim`` and its ``score`` by
        fraction, and ``ahead``: for each number of trials the middle and the ends of the bands of
        score, of its gain over all trials there are, and of the dimension; ``curve``: the same
        band of the score over the whole range; ``largest`` of the grid; ``failed_models``: those
        without a curve.
    """
    trials = [fraction * num_trials for fraction in fractions]
    told: dict[str, Any] = {
        "fractions": list(fractions),
        "trials": [int(number + 0.5) for number in trials],
        "law": LAW,
        "level": LEVEL,
        "models": {},
        "failed_models": [],
    }
    rule: Rule = summary["rule"]
    for name, entry in summary["models"].items():
        curve = Curve.of(tables, name, trials=trials, unit=summary["unit"])
        if curve is None or entry["chosen_dim"] not in curve.dims:
            told["failed_models"].append(name)
            continue
        chosen = [_chosen(gains, curve.dims, rule) for gains in curve.gains]
        totals = curve.scores.sum(axis=1)
        whole = entry["chosen_dim"]
        drawn = partial(outlook, curve, rule=rule, chosen=whole)
        places = np.geomspace(trials[0], TIMES[-1] * num_trials, CURVE_POINTS)
        bands = [_band(drawn(float(place)).score) for place in places]
        told["models"][name] = {
            "swept": entry["swept"],
            "largest": curve.dims[-1],
            "chosen_dim": chosen,
            "score": [
                float(total[curve.dims.index(dim)])
                for total, dim in zip(totals, chosen, strict=True)
            ],
            "ahead": [
                _ahead(drawn(float(times * num_trials)), times, num_trials) for times in TIMES
            ],
            "curve": {
                "trials": places.tolist(),
                **{end: [band[end] for band in bands] for end in ("middle", "low", "high")},
            },
        }
    return told


def growth_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return what is printed of it; nothing where no trials were subsampled."""
    if "growth" not in summary:
        return []
    level = f"{summary['growth']['level']:.0%}".replace("%", " %")
    return [f"more trials, bands of {level}:", *growth_words(summary["growth"], summary["unit"])]


def growth_words(told: Mapping[str, Any], unit: str) -> list[str]:
    """Say for each model what more trials would bring.

    Args:
        told: as ``growth`` returns it.
        unit: of the scores.
    """
    words = []
    for name, entry in told["models"].items():
        for ahead in entry["ahead"]:
            score, gain, dim = ahead["score"], ahead["gain"], ahead["dim"]
            size = str(dim["low"])
            if dim["high"] > dim["low"]:
                size += f" to {dim['high']}"
            words.append(
                f"{name}: with {ahead['times']} times the trials ({ahead['trials']}) "
                f"{score['low']:.4f} to {score['high']:.4f} {unit.replace('_', ' ')}, "
                f"{gain['low']:+.4f} to {gain['high']:+.4f} against now, {entry['swept']} {size} "
                f"(now {entry['chosen_dim'][-1]})"
            )
        if entry["ahead"][-1]["dim"]["high"] == entry["largest"]:
            words.append(
                f"{name}: {entry['swept']} {entry['largest']} is the largest of the grid, so more "
                "trials may tell of more than that; add larger ones to dims"
            )
    words += [
        f"{name}: no size has all scores at every fraction, so there is no curve"
        for name in told["failed_models"]
    ]
    return words


def _ahead(drawn: Outlook, times: int, num_trials: int) -> dict[str, Any]:
    low, middle, high = (int(dim) for dim in np.quantile(drawn.dim, _ENDS, method="inverted_cdf"))
    return {
        "times": times,
        "trials": times * num_trials,
        "score": _band(drawn.score),
        "gain": _band(drawn.gain),
        "dim": {"middle": middle, "low": low, "high": high},
    }


def _band(values: Float[np.ndarray, " draw"]) -> dict[str, float]:
    low, middle, high = (float(end) for end in np.quantile(values, _ENDS))
    return {"middle": middle, "low": low, "high": high}


def _chosen(gains: Float[np.ndarray, "cell dim"], dims: list[int], rule: Rule) -> int:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*largest of the grid")  # told of the whole
        return choose(gains, dims, rule=rule).dim


def _by_fold(
    values: Float[np.ndarray, "cell dim"], rows: Int[np.ndarray, " cell"]
) -> Float[np.ndarray, "fold dim"]:
    return np.stack([values[rows == fold].sum(axis=0) for fold in np.unique(rows)])


def _centred(values: Float[np.ndarray, "fold dim"]) -> Float[np.ndarray, "fold dim"]:
    return values - values.mean(axis=0)
