"""Prove that what is scored is known neither to learning nor to inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqvae.analysis.leaks import altered, hidden_in, repeated, twins
from seqvae.analysis.posterior import ACTIVITY, posterior_dataset
from seqvae.data import NeuralData, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.learning import Learner, default_fit
from seqvae.models import Model
from seqvae.runs import ModelFactory
from seqvae.verbs.fit import fit

MOST_NAMED = 5
OF_THE_TARGET = (ACTIVITY, "elbo")
"""Variables of a posterior that are of the recorded data themselves."""


def leakcheck(
    data: DataLike,
    model: ModelFactory | None = None,
    learner: Learner | None = None,
    *,
    bin_width: BinWidth = None,
    seed: int = 0,
    num_samples: int = 4,
) -> dict[str, Any]:
    """Change everything that is held out, and see whether anything else changes.

    Four questions, of which none asks how a model works, so that models of one's own can be asked:

    - *learning*: is the model that is learned, bit for bit, the one that is learned where the
      entries that are scored hold other values (of test trials all; of validation trials, which
      choose when to stop, held-out neurons and forecast bins)?
    - *inference*: are rates and factors the same where held-out neurons and forecast bins of the
      scored trials hold other values?
    - *units*: is no held-out neuron a held-in one that was sorted twice?
    - *trials*: does no scored trial hold a stretch of bins of a training trial, as windows that
      overlap do?

    The model is fitted twice, in memory: a learner of a few epochs tells as much as one of many.
    Equal bits are promised on CPUs.

    Args:
        data: the recording, how it is split, and what inference may see.
        model: factory of the model; None: as ``fit`` takes it.
        learner: how it is learned; None: as ``fit`` takes it.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        seed: of both fits.
        num_samples: posterior samples of the comparison.

    Returns:
        ``split``: the trials that are scored; ``checks``: for each question its ``name``, whether
        it ``passed`` (None: there was nothing to ask) and a ``sentence``; ``leaks``: the names of
        those that did not pass.

    Raises:
        InputError: if nothing is held out, or data, model and learner do not go together.
    """
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")
    data = as_data(data, bin_width)
    data.setup()
    data.trials("train")
    hidden = hidden_in(data)
    if not hidden.whole.any():
        raise InputError(
            "nothing is held out: no test trials, held-out neurons or forecast bins; give "
            "data.test_fraction or data.heldout"
        )
    if model is None:
        default = default_fit(data)
        model, learner = default.model, default.learner if learner is None else learner
    unknown = altered(data, hidden.whole)
    checks = []
    learned, other = (
        fit(one, model, learner, in_memory=True, seed=seed).model() for one in (data, unknown)
    )
    differing = _differing(learned, other)
    checks.append(_check(
        "learning",
        not differing,
        "what is learned is the same, bit for bit, whatever is scored",
        f"with other values where it is scored, another model is learned ({_named(differing)} "
        "differ): see what reads trials other than those of split 'train'",
    ))  # fmt: skip
    checks.append(_inference(learned, data, hidden.heldout, hidden.split, num_samples, seed))
    pairs = twins(data)
    names = _named([f"{seen} and {unseen}" for seen, unseen in pairs])
    checks.append(_check(
        "units",
        None if not data.spec.heldout else not pairs,
        "no held-out neuron fires in the same bins as a held-in one",
        f"held-in and held-out neurons fire in the same bins ({names}): a unit sorted twice; use "
        "the transform DropDuplicates",
        "no neuron is held out",
    ))  # fmt: skip
    again = repeated(data, hidden.split)
    checks.append(_check(
        "trials",
        not len(again),
        "no scored trial holds a stretch of bins of a training trial",
        f"{len(again)} scored trials, the first is {again[0] if len(again) else ''}, hold bins of "
        "training trials: split before windows are cut, or leave overlap out",
    ))  # fmt: skip
    leaks = [check["name"] for check in checks if check["passed"] is False]
    return {"split": hidden.split, "checks": checks, "leaks": leaks}


def _inference(
    model: Model,
    data: NeuralData,
    heldout: np.ndarray,
    split: str,
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Compare what is inferred from the same held-in entries beside other held-out ones."""
    differing: list[str] = []
    if heldout.any():
        trials = data.trials(split)
        one, other = (
            posterior_dataset(model, each, trials, num_samples=num_samples, seed=seed)
            for each in (data, altered(data, heldout))
        )
        differing = [
            str(name) for name in one.data_vars
            if name not in OF_THE_TARGET
            and one[name].dtype.kind == "f"
            and not np.array_equal(one[name].values, other[name].values, equal_nan=True)
        ]  # fmt: skip
    return _check(
        "inference",
        None if not heldout.any() else not differing,
        "what is inferred is the same, bit for bit, whatever is held out",
        f"with other values where inference shall not see them, {_named(differing)} differ: see "
        "what the model reads beside batch.observed",
        "nothing is held out of inference",
    )


def _differing(one: Model, other: Model) -> list[str]:
    """Return the names of the weights and facts that are not bitwise equal."""
    ours, theirs = one.state_dict(), other.state_dict()
    return [
        name for name in ours
        if name not in theirs
        or ours[name].shape != theirs[name].shape
        or not bool((ours[name].eq(theirs[name]) | ours[name].ne(ours[name])).all())
    ]  # fmt: skip


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _check(name: str, passed: bool | None, good: str, bad: str, absent: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "passed": passed,
        "sentence": absent if passed is None else good if passed else bad,
    }


def shown(result: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Lay out the answers, one a line."""
    words = {True: "ok", False: "LEAK", None: "-"}
    lines = [
        f"{check['name']:<10}{words[check['passed']]:<6}{check['sentence']}"
        for check in result["checks"]
    ]
    number = len(result["leaks"])
    verdict = "no leak was found" if not number else f"leaks: {', '.join(result['leaks'])}"
    return "\n".join([f"scored: {result['split']} trials", *lines, verdict])
