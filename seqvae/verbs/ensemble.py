"""Make one run of several fitted ones: the mean of their rates."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from seqvae.analysis.stacking import stacked_weights
from seqvae.errors import InputError, nearest
from seqvae.learning.observers import Figures
from seqvae.learning.observers.base import Stage
from seqvae.models import Mixture
from seqvae.runs import Ensemble, Run
from seqvae.storage.files import RunFiles, check_writable, is_empty

WORDS = ("equal", "stacking")
STACKING_SAMPLES = 50


def ensemble(
    runs: Sequence[Run | str],
    *,
    weights: Literal["equal", "stacking"] | list[float] = "equal",
    run_dir: str | None = None,
    trust: bool = False,
) -> Run:
    """Make one run of several runs that were fitted to the same recording.

    Its rates are the weighted mean of theirs, and what it says of an entry is the mixture of what
    they say. ``evaluate`` and ``infer`` take it as any run. ``Ensemble(runs)`` is the same in
    memory.

    Args:
        runs: the members, at least two: runs or their folders. They are copied by content.
        weights: ``equal``; a list, one for each run, not negative and of sum 1; or ``stacking``:
            those that predict best entries of the held-in neurons in validation trials which are
            hidden from inference. Few validation trials are soon over-fitted by these.
        run_dir: the run folder; None makes one under ``runs/`` named by the time.
        trust: allow the configs of the runs to import classes from anywhere.

    Raises:
        InputError: for runs that do not go together, or anything else the user can mend; nothing
            is written then.
    """
    folder = Path(run_dir or f"runs/ensemble-{datetime.now():%Y%m%d-%H%M%S}")
    if isinstance(weights, str) and weights not in WORDS:
        raise InputError(f"weights {weights!r} are unknown{nearest(weights, WORDS)}")
    if not is_empty(folder):
        raise InputError(f"run_dir {str(folder)!r} is not empty; give a new folder")
    together = Ensemble(runs, weights=None if isinstance(weights, str) else weights, trust=trust)
    check_writable(folder)
    if weights == "stacking":
        together = Ensemble(runs, weights=_stacked(together, trust=trust), trust=trust)
    run = together.save(folder)
    draw(run, trust=trust)
    return run


def _stacked(together: Ensemble, *, trust: bool) -> list[float]:
    """Return the stacking weights, and warn of what they are worth."""
    model, data = together.model(), together.data(trust=trust)
    assert isinstance(model, Mixture)
    if model.refitted:
        raise InputError(
            "weights: stacking chooses by validation trials, and a member was refitted, so that it "
            "has learned from them; leave the weights equal"
        )
    weights = stacked_weights(model, data, num_samples=STACKING_SAMPLES, seed=together.seed)
    listed = ", ".join(f"{name} {w:.3f}" for name, w in zip(model.names, weights, strict=True))
    reported = "" if "test" in data.split else ", which evaluate scores, too"
    warnings.warn(
        f"weights: stacked on {len(data.trials('val'))} validation trials{reported}: {listed}; few "
        "trials are soon over-fitted: compare with equal weights on trials that were kept apart",
        stacklevel=3,
    )
    return [float(weight) for weight in weights]


def draw(run: Run, *, trust: bool) -> None:
    """Draw the figures of a run, if its data are at hand."""
    try:
        data = run.data(trust=trust)
    except InputError:
        return
    try:
        Figures(RunFiles(run.files.folder)).end(Stage(run.model(trust=trust), data))
    except Exception as error:  # the ensemble is whole without
        warnings.warn(f"the figures could not be drawn: {error!r}", stacklevel=3)


def shown(run: Run, arguments: Mapping[str, Any]) -> str:
    """Tell where the run lies, and its members with their weights."""
    weights = run.config["model"]["init_args"]["weights"]
    members = [f"  {name} ({run.members[name]['run']}): {w:.3f}" for name, w in weights.items()]
    return "\n".join([f"run folder: {run.folder}", *members])
