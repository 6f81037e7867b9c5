"""What is tried next, by Optuna: a function of what was tried, and of the seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from seqvae.errors import InputError
from seqvae.tuning.space import Choice, Interval, Space

if TYPE_CHECKING:
    import optuna

NUM_SEEDS = 2**32
"""That NumPy's older generators take, from 0 on."""
Search = Literal["tpe", "random"]
NUM_RANDOM = 10
"""Fits that are drawn at random before the estimator of the good ones is asked."""


def require_optuna() -> None:
    """See that Optuna is there.

    Raises:
        InputError: telling what to install.
    """
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise InputError("tune needs optuna; pip install 'seqvae[tune]'")


def proposals(
    space: Space,
    tried: Sequence[tuple[Mapping[str, Any], float | None]],
    *,
    number: int,
    count: int = 1,
    search: Search = "tpe",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return settings to try next.

    With ``tpe`` by the tree-structured Parzen estimator of all settings together (Bergstra et al.
    2011): where the density of good settings exceeds that of the others most; those that are
    proposed together keep apart, as each is taken for a poor one until it is known. The same
    arguments give the same answer.

    Args:
        space: the settings, and what each may be.
        tried: settings and scores, of which more is better; None: a fit that failed. Settings that
            lie outside of the space teach nothing.
        number: of the first of these fits.
        count: how many are tried together.
        search: ``tpe`` or ``random``.
        seed: of the draws.
    """
    import optuna

    with _quiet():
        drawn = (seed * 1_000_003 + number) % NUM_SEEDS
        sampler: optuna.samplers.BaseSampler
        if search == "random":
            sampler = optuna.samplers.RandomSampler(seed=drawn)
        else:
            sampler = optuna.samplers.TPESampler(
                seed=drawn, multivariate=True, constant_liar=True, n_startup_trials=NUM_RANDOM
            )
        study = _study(space, tried, sampler)
        distributions = _distributions(space)
        answers = [study.ask(distributions).params for _ in range(count)]
    return [
        {name: _decoded(space[name], value) for name, value in answer.items()} for answer in answers
    ]


def importances(
    space: Space, tried: Sequence[tuple[Mapping[str, Any], float | None]], *, seed: int = 0
) -> dict[str, float]:
    """Return the share of the scores' variance that each setting explains by itself or with others.

    By functional analysis of variance of a random forest (Hutter et al. 2014); they add up to 1.
    Nothing where fewer than four fits are known, or all score the same.

    Args:
        space: the settings.
        tried: settings and scores.
        seed: of the forest.
    """
    import optuna

    with _quiet():
        study = _study(space, [(settings, score) for settings, score in tried if score is not None])
        scores = [trial.value for trial in study.trials]
        if len(scores) < 4 or len(set(scores)) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed % NUM_SEEDS)
        return {
            name: float(share)
            for name, share in optuna.importance.get_param_importances(
                study, evaluator=evaluator
            ).items()
        }


def _study(
    space: Space,
    tried: Sequence[tuple[Mapping[str, Any], float | None]],
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """Return what Optuna is to know: fits inside of the space, those that failed among them."""
    import optuna

    study = optuna.create_study(direction="maximize", sampler=sampler)
    state = optuna.trial.TrialState
    for settings, score in tried:
        if all(name in settings and space[name].holds(settings[name]) for name in space):
            study.add_trial(
                optuna.trial.create_trial(
                    params={name: _coded(space[name], settings[name]) for name in space},
                    distributions=_distributions(space),
                    value=score,
                    state=state.FAIL if score is None else state.COMPLETE,
                )
            )
    return study


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    return {name: _distribution(values) for name, values in space.items()}


def _distribution(values: Interval | Choice) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if isinstance(values, Choice):  # of places, as values may be lists
        return distributions.CategoricalDistribution(range(len(values.values)))
    if values.is_whole:
        return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)


def _coded(values: Interval | Choice, value: Any) -> Any:
    return list(values.values).index(value) if isinstance(values, Choice) else value


def _decoded(values: Interval | Choice, value: Any) -> Any:
    return values.values[value] if isinstance(values, Choice) else rounded(values, value)


def rounded(values: Interval, value: int | float) -> int | float:
    """Return a number of an interval, whole where that is meant, else to four digits."""
    if values.is_whole:
        return round(value)
    return min(max(float(f"{value:.4g}"), values.low), values.high)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of each fit, and of what it calls experimental."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
