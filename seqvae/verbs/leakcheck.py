"""Prove that what is scored is known neither to learning nor to inference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from seqvae.analysis.evaluation import evaluate_model
from seqvae.analysis.leaks import (
    Check,
    Hidden,
    altered,
    check,
    hidden_in,
    inference_check,
    learning_check,
    named,
    repeated,
    trials_check,
    twins,
    units_check,
)
from seqvae.analysis.stacking import stacked_weights
from seqvae.crossvalidation.leaks import cell_checks
from seqvae.data import NeuralData, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError, nearest
from seqvae.learning import Learner, LearnerFactory, completed_fit
from seqvae.models import Mixture, Model
from seqvae.runs import Ensemble, ModelFactory, Run
from seqvae.verbs.fit import fit

SCHEMES = ("fold_in", "gabriel", "speckled")
LEAK_FOUND = 3
"""Exit code of the command."""

OF_WHAT_IS_SEEN = ("heldin_elbo", "log_evidence", "laplace_evidence", "latents", "kl/",
                   "active_units/")  # fmt: skip
"""Names, or how they begin, of the scores of a trial that depend on nothing that is held out."""


def leakcheck(
    data: DataLike,
    model: ModelFactory | None = None,
    learner: Learner | LearnerFactory | None = None,
    *,
    bin_width: BinWidth = None,
    seed: int = 0,
    num_samples: int = 4,
    members: int = 1,
    report: bool = False,
    scheme: Literal["fold_in", "gabriel", "speckled"] | None = None,
    dim: int = 2,
    trial_folds: int = 5,
    neuron_folds: int = 4,
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

    With ``members`` above 1 also *ensemble*: are stacking weights and what the ensemble infers the
    same? With ``report`` also *report*: the curves of learning, all that ``evaluate`` and a report
    say of training trials, and of scored ones whatever is of what inference sees?

    With a ``scheme`` the same is asked of a cell of a cross-validation (its first trial fold and
    neurons), of its ensemble where there are ``members``, and *hidden*: do the recordings that a
    cell gets hold no scored value, whatever transforms do? Folds stay as they are.

    The model is fitted twice, in memory: a learner of a few epochs tells as much as one of many.
    Equal bits are promised on CPUs.

    Args:
        data: the recording, how it is split, and what inference may see.
        model: factory of the model; None: as ``fit`` takes it.
        learner: how it is learned; None: as ``fit`` takes it.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        seed: of both fits.
        num_samples: posterior samples of the comparison.
        members: fits of an ensemble, with seeds from ``seed`` on; 1: none.
        report: ask what is told of the fit, too.
        scheme: of a cross-validation; None: a fit is asked.
        dim: size of the model in the cell.
        trial_folds: folds of trials, or blocks, of the cross-validation.
        neuron_folds: folds of neurons.

    Returns:
        ``split``: the trials that are scored, or the scheme; ``checks``: for each question its
        ``name``, whether it ``passed`` (None: there was nothing to ask) and a ``sentence``;
        ``leaks``: the names of those that did not pass. The command ends with exit code 3 if there
        are any.

    Raises:
        InputError: if nothing is held out, or data, model and learner do not go together.
    """
    for name, number in (("num_samples", num_samples), ("members", members), ("dim", dim)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    data = as_data(data, bin_width)
    if scheme is not None:
        if scheme not in SCHEMES:
            raise InputError(f"scheme {scheme!r} is unknown{nearest(scheme, SCHEMES)}")
        if report:
            raise InputError("report: a cross-validation has none of a fit; leave it or scheme out")
        if model is None and members > 1:
            raise InputError("members: name the model of an ensemble of cells, e.g. PCA")
        models = None if model is None else {f"member {each}": model for each in range(members)}
        checks = cell_checks(
            data, models, learner, scheme=scheme, dim=dim, trial_folds=trial_folds,
            neuron_folds=neuron_folds, seed=seed, num_samples=num_samples,
        )  # fmt: skip
        return _answer(f"cells of scheme {scheme}", checks)
    data.setup()
    data.trials("train")
    hidden = hidden_in(data)
    if not hidden.whole.any():
        raise InputError(
            "nothing is held out: no test trials, held-out neurons or forecast bins; give "
            "data.test_fraction or data.heldout"
        )
    if model is None:
        suited = completed_fit(None, data, learner)
        assert suited is not None
        model, learner = suited
    unknown = altered(data, hidden.whole)
    unseen = altered(data, hidden.heldout) if hidden.heldout.any() else None
    runs, others = (
        [fit(one, model, learner, in_memory=True, seed=seed + each) for each in range(members)]
        for one in (data, unknown)
    )
    learned, trials = runs[0].model(), data.trials(hidden.split)
    checks = [learning_check(learned, others[0].model())]
    ask = partial(inference_check, trials=trials, num_samples=num_samples, seed=seed)
    if unseen is None:
        checks.append(Check("inference", None, "nothing is held out of inference"))
    else:
        checks.append(ask((learned, learned), (data, unseen)))
    checks.append(units_check(twins(data), asked=bool(data.spec.heldout)))
    parts = (data.recording.select(data.trials(split)) for split in (hidden.split, "train"))
    checks.append(trials_check(trials[repeated(*parts)]))
    if members > 1:
        one, other = _together(runs, data), _together(others, unknown)
        answers = learning_check(one, other), ask((one, other), (data, unseen or data))
        failed = [each for each in answers if not each.passed]
        checks.append((failed or list(answers))[-1]._replace(name="ensemble"))
    if report:
        checks.append(_report_check((runs[0], others[0]), (data, unknown, unseen), hidden))
    return _answer(f"{hidden.split} trials", checks)


def _answer(scored: str, checks: list[Check]) -> dict[str, Any]:
    return {
        "split": scored.removesuffix(" trials"),
        "scored": scored,
        "checks": [one._asdict() for one in checks],
        "leaks": [one.name for one in checks if one.passed is False],
    }


def _together(runs: list[Run], data: NeuralData) -> Model:
    """Return the ensemble of some runs, with stacking weights where validation trials choose them.

    What is scored of them is not what the weights are chosen by: entries of held-in neurons.
    """
    mixture = Ensemble(runs).model()
    assert isinstance(mixture, Mixture)
    if "val" not in data.split or mixture.refitted:
        return mixture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = stacked_weights(mixture, data, num_samples=4, seed=runs[0].seed)
    return Ensemble(runs, weights=[float(weight) for weight in weights]).model()


def _report_check(
    runs: tuple[Run, Run],
    data: tuple[NeuralData, NeuralData, NeuralData | None],
    hidden: Hidden,
) -> Check:
    """Tell whether curves and scores are the same, but those of what is scored."""
    known, unknown, unseen = data
    is_apart = hidden.split == "test"
    curves, others = (_curves(run, is_apart) for run in runs)
    differing = [f"curve {name}" for name in _unequal(curves, others)]
    model = runs[0].model()

    def scores(each: NeuralData, split: str) -> dict[str, Any]:
        return evaluate_model(
            model, each, split=split, num_samples=4, seed=runs[0].seed, per_neuron=split == "train"
        )

    if is_apart:
        pair = scores(known, "train"), scores(unknown, "train")
        differing += [f"{name} of training trials" for name in _unequal(*pair)]
    if unseen is not None:
        pair = scores(known, hidden.split), scores(unseen, hidden.split)
        of_seen = [
            {name: value for name, value in each.items() if name.startswith(OF_WHAT_IS_SEEN)}
            for each in pair
        ]
        differing += [f"{name} of {hidden.split} trials" for name in _unequal(*of_seen)]
    return check(
        "report",
        not differing,
        "curves, and scores of what is not held out, are the same, bit for bit, whatever is scored",
        f"with other values where it is scored, {named(differing)} differ",
    )


def _curves(run: Run, is_apart: bool) -> dict[str, list[Any]]:
    """Return the columns of the history; scores of validation only if it is not what is scored."""
    columns: dict[str, list[Any]] = {}
    for row in run.history:
        for name, value in row.items():
            if is_apart or not name.startswith("val/"):
                columns.setdefault(name, []).append(value)
    return columns


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names under which two trees of numbers differ; a NaN equals itself."""
    return [name for name in one if name not in other or not _same(one[name], other[name])]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return not _unequal(one, other) and len(one) == len(other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return bool(np.array_equal(one, other, equal_nan=True))
    return bool(one == other)


def exit_code(result: Mapping[str, Any]) -> int:
    """Return that of the command: 3 if there is a leak, else 0."""
    return LEAK_FOUND if result["leaks"] else 0


def shown(result: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Lay out the answers, one a line."""
    words = {True: "ok", False: "LEAK", None: "-"}
    lines = [
        f"{check['name']:<10}{words[check['passed']]:<6}{check['sentence']}"
        for check in result["checks"]
    ]
    number = len(result["leaks"])
    verdict = "no leak was found" if not number else f"leaks: {', '.join(result['leaks'])}"
    return "\n".join([f"scored: {result['scored']}", *lines, verdict])
