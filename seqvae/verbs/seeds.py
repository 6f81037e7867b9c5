"""One fit by several seeds: the runs, how far their scores spread, and the mean of their rates."""

from __future__ import annotations

import json
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.analysis.seeds import KEPT, SCORES, Seed, compared
from seqvae.compute.ranks import Place
from seqvae.compute.termination import terminable
from seqvae.compute.workers import Workers
from seqvae.data import NeuralData
from seqvae.errors import InputError, Terminated, UnwritableError
from seqvae.learning.observers import tell
from seqvae.learning.validation import validation_scores
from seqvae.runs import Ensemble, Run
from seqvae.runs.origin import weights_hash
from seqvae.runs.provenance import differences
from seqvae.storage.files import RunFiles, is_empty, write_text
from seqvae.storage.locking import locked
from seqvae.storage.yaml_json import read_json
from seqvae.verbs.ensemble import draw

TABLE = "seeds.json"
"""In the run folder: what became of each seed."""


@dataclass(frozen=True)
class Report:
    """What a worker tells of a fit.

    Attributes:
        seed: the seed.
        warnings: what it warned of.
        advice: what is wrong with it.
        error: why it could not be fitted; None: it is whole.
    """

    seed: int
    warnings: list[str]
    advice: list[str]
    error: str | None = None


@dataclass(frozen=True)
class Seeds:
    """The seeds of one fit, and the folder that holds them.

    Attributes:
        folder: of the ensemble, each run in ``seed_0`` and so on.
        seeds: to fit.
        config: the complete config tree of the fit, whatever its seed.
        resume: whether the seeds that are whole are kept, and the others gone on with.
        num_workers: fits at a time, each on one core; 1: one after the other, here.
    """

    folder: Path
    seeds: Sequence[int]
    config: Mapping[str, Any]
    resume: bool = False
    num_workers: int = 1

    def fitted(self, fit: Callable[..., Run], data: NeuralData) -> Run:
        """Fit all, compare them, and return the ensemble of those that are no outliers.

        Args:
            fit: fits one of them, given ``seed``, ``run_dir`` and ``resume``.
            data: that they are fitted to.

        Raises:
            InputError: for a folder that holds something else, or if fewer than two can be fitted.
            Terminated: if terminated, with what to do.
        """
        with terminable(), locked(self.folder, key="run_dir"):
            whole = self._check_folder()
            try:
                errors = self._fit_all(fit, [seed for seed in self.seeds if seed not in whole])
            except Terminated as end:
                raise Terminated(
                    "terminated; the seeds that are whole are kept, and the same command goes on "
                    "with --resume"
                ) from end
            runs = {seed: Run(self._place(seed)) for seed in self.seeds if seed not in errors}
            name, scores = _scores(runs, data)
            rows = compared(scores, least=SCORES.get(name or "", 0.0))
            rows = [replace(row, hash=runs[row.seed].hash) for row in rows]
            failed = [Seed(seed, None, None, f"failed: {error}") for seed, error in errors.items()]
            self._write([*rows, *failed], name)
            _warn(rows, failed, runs, name)
            kept = [row.seed for row in rows if row.status in KEPT]
            if len(kept) < 2:
                if not runs and not any(map(self._is_there, self.seeds)):
                    (self.folder / TABLE).unlink()
                raise InputError(
                    f"seeds: fewer than two could be fitted: {next(iter(errors.values()), '')}"
                )
            together = Ensemble([runs[seed] for seed in kept], trust=True)
            run = together.write(RunFiles(self.folder)).remember(together.model(), data)
        draw(run, trust=True)
        return run

    def _place(self, seed: int) -> Path:
        return self.folder / f"seed_{seed}"

    def _is_there(self, seed: int) -> bool:
        return self._place(seed).exists()

    def _check_folder(self) -> list[int]:
        """Return the seeds that are whole; refuse a folder that would lose something.

        Raises:
            InputError: naming the folder and what may be done.
        """
        where = f"run_dir {str(self.folder)!r}"
        if is_empty(self.folder):
            if self.resume:
                raise InputError(f"{where} holds no seeds to resume; leave resume out")
            self._write([])
            return []
        try:
            content = read_json(self.folder / TABLE, TABLE)
            former = [Seed(**row) for row in content["seeds"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{where} is not empty and holds no seeds; give a new folder"
            ) from error
        if not self.resume:
            raise InputError(
                f"{where} already holds seeds; give a new folder, or --resume to go on"
            )
        whole = [row.seed for row in former if row.hash is not None and self._is_whole(row)]
        return [seed for seed in self.seeds if seed in whole]

    def _is_whole(self, row: Seed) -> bool:
        """Whether a run is there as it was noted; refuse one that had other settings."""
        try:
            run = Run(self._place(row.seed))
        except InputError:
            return False
        changed = [
            words
            for section in ("data", "model", "learner")
            for words in differences(run.config[section], self.config[section], section)
            if not words.startswith(("data.init_args.seed ", "learner.init_args.progress "))
        ]
        if changed:
            raise InputError(f"{changed[0]}; cannot resume {self.folder} with another setting")
        return run.hash == row.hash and run.files.weights.exists()

    def _fit_all(self, fit: Callable[..., Run], seeds: Sequence[int]) -> dict[int, str]:
        """Fit the seeds, and return why some could not be."""
        work = partial(_report, fit, self.folder)
        errors = dict[int, str]()
        warned, advised = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        with closing(Workers(self.num_workers).answers(work, seeds)) as reports:
            for report in reports:
                if report.error is not None:
                    errors[report.seed] = report.error
                for sentence in dict.fromkeys(report.warnings):
                    warned[sentence].append(report.seed)
                for sentence in report.advice:
                    advised[sentence].append(report.seed)
                self._note(report)
        for sentence, seeds_of_it in warned.items():
            warnings.warn(f"{_listed(seeds_of_it)}: {sentence}", stacklevel=4)
        tell(f"{_listed(seeds_of_it)}: {sentence}" for sentence, seeds_of_it in advised.items())
        return errors

    def _note(self, report: Report) -> None:
        """Note that a seed is whole, so that it is kept whatever becomes of the others."""
        if report.error is None:
            rows = [row for row in self._rows() if row.seed != report.seed]
            run = Run(self._place(report.seed))
            self._write([*rows, Seed(report.seed, run.hash, None, "whole")])

    def _rows(self) -> list[Seed]:
        return [Seed(**row) for row in read_json(self.folder / TABLE, TABLE)["seeds"]]

    def _write(self, rows: Sequence[Seed], score: str | None = None) -> None:
        content = {"score": score, "seeds": [*map(asdict, sorted(rows, key=lambda row: row.seed))]}
        write_text(self.folder / TABLE, json.dumps(content, indent=2) + "\n")


def check_seeds(seeds: int, jobs: int, *, in_memory: bool, overwrite: bool, place: Place) -> None:
    """Refuse what several seeds cannot be fitted with.

    Raises:
        InputError: naming the argument.
    """
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, got {seeds}")
    Workers(jobs)
    if seeds == 1:
        raise InputError("jobs are for several seeds; give seeds, or leave jobs out")
    if in_memory:
        raise InputError("in_memory is for one fit; leave it out, or seeds")
    if overwrite:
        raise InputError("overwrite is for one fit; give several seeds a new run_dir")
    if place.started > 1:
        raise InputError(
            f"seeds: {place.started} processes are started together for one fit; leave seeds out"
        )


def _scores(
    runs: Mapping[int, Run], data: NeuralData
) -> tuple[str | None, dict[int, float | None]]:
    """Return the name of the score and that of each run on the validation trials."""
    every = {seed: validated(run, data) for seed, run in runs.items()}
    name = next(
        (name for name in SCORES if every and all(f"val/{name}" in one for one in every.values())),
        None,
    )
    return name, {seed: one.get(f"val/{name}") for seed, one in every.items()}


def validated(run: Run, data: NeuralData) -> Mapping[str, float]:
    """Return the scores of a run on the validation trials.

    Of one that has learned from these since, the best that it had before, as its history tells.
    """
    model = run.model(trust=True)
    if not model.refitted:
        return validation_scores(model, data)
    rows = [row for row in run.history if not row.get("refit")]
    names = {name for row in rows for name in row if name.startswith("val/")}
    return {name: max(row[name] for row in rows if name in row) for name in names}


def _warn(
    rows: Sequence[Seed], failed: Sequence[Seed], runs: Mapping[int, Run], name: str | None
) -> None:
    """Tell seeds that could not be fitted, outliers, and seeds that make no difference."""
    sentences = [f"seed {row.seed} {row.status}; it is left out" for row in failed]
    scores = [row.score for row in rows if row.score is not None]
    for row in rows:
        if row.status == "outlier":
            sentences.append(
                f"seed {row.seed} is an outlier: {name} {row.score:.4f} on the validation trials, "
                f"while the median is {np.median(scores):.4f}; it is left out of the ensemble"
            )
    if name is None:
        sentences.append("without validation trials the seeds cannot be compared; all are kept")
    states = [run.model(trust=True).state_dict() for run in runs.values()]
    if len(states) > 1 and len({weights_hash(state) for state in states}) == 1:
        sentences.append("all seeds have led to the same weights; one fit is as good as several")
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=4)


def _report(fit: Callable[..., Run], folder: Path, seed: int) -> Report:
    """Fit a seed, or go on where it ended, and gather what is told."""
    place = folder / f"seed_{seed}"
    report = Report(seed, [], [])
    with heard(report):
        try:
            fit(seed=seed, run_dir=str(place), resume=(place / "config.yaml").exists())
        except UnwritableError:  # says nothing of the seed
            raise
        except InputError as error:
            report = replace(report, error=str(error))
    return report


@contextmanager
def heard(report: Report) -> Iterator[None]:
    """Gather warnings and advice in place of telling them."""
    logger, handler = logging.getLogger("seqvae"), _Listening(report.advice)
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
            report.warnings.extend(
                str(one.message) for one in caught if one.category is UserWarning
            )
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


class _Listening(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__()
        self.sentences = sentences

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage().removeprefix("seqvae: "))


def _listed(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"


def shown(run: Run) -> str:
    """Lay out the seeds: score, the best one, outliers; and how far they spread."""
    content = read_json(run.files.folder / TABLE, TABLE)
    rows, name = [Seed(**row) for row in content["seeds"]], content["score"]
    head = "seeds" if name is None else f"seeds, by {name} on the validation trials"
    lines = [f"run folder: {run.folder} (the mean of their rates)", head]
    for row in rows:
        score = "" if row.score is None else f"  {row.score:.4f}"
        status = "" if row.status == "whole" else f"  {row.status}"
        lines.append(f"  seed_{row.seed}{score}{status}")
    scores = [row.score for row in rows if row.score is not None]
    if scores:
        spread = (np.min(scores), np.median(scores), np.max(scores))
        lines.append("  min {:.4f}, median {:.4f}, max {:.4f}".format(*spread))
    return "\n".join(lines)
