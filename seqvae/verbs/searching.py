"""A search of settings: what it is of, and how it is done, by one command or by several."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from seqvae.compute.progress import bar as progress_bar
from seqvae.compute.workers import Workers
from seqvae.config import override, to_config
from seqvae.config.reading import setting_of
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning import Learner, LearnerFactory, completed_fit, learner_of
from seqvae.runs import ModelFactory
from seqvae.storage.files import atomic_path, write_text
from seqvae.storage.shards import Shard
from seqvae.tuning import Choice, Interval, Space, Study, Task, evolution, rounds, wait_for
from seqvae.tuning.proposals import importances
from seqvae.verbs.fit import checked_class, fit
from seqvae.verbs.generation_stages import stages_of
from seqvae.verbs.searched_fit import fit_of_task, parts_of

BEST = "best.yaml"
TOGETHER = 4
"""Fits that are proposed at once, so that as many may be made at a time and be the same."""


@dataclass(frozen=True)
class Search:
    """A search of settings.

    Attributes:
        config: the complete config of the fit as it is without a search.
        space: what may vary.
        former: what these settings are without a search.
        search: ``tpe``, ``random`` or ``pbt``.
        sizes: ``num_fits``; of a population ``population`` and ``generations``.
        stages: the complete config of the fits of each generation; one, if there are none.
    """

    config: Mapping[str, Any]
    space: Space
    former: Mapping[str, Any]
    search: str
    sizes: Mapping[str, int]
    stages: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        space: Space,
        data: NeuralData,
        *,
        search: str,
        sizes: Mapping[str, int],
    ) -> Search:
        """See that a search can be made of this.

        Raises:
            InputError: naming the setting that is not there, or does not take what it shall be.
        """
        former = {name: _former(config, name, space[name]) for name in space}
        space = {
            name: one.like(former[name]) if isinstance(one, Interval) else one
            for name, one in space.items()
        }
        stages = [config]
        if search == "pbt":
            stages = stages_of(config, space, data, generations=sizes["generations"])
        return cls(config, space, former, search, sizes, stages)

    @property
    def num_fits(self) -> int:
        """How many there are in all."""
        sizes = self.sizes
        return sizes.get("num_fits") or sizes["population"] * sizes["generations"]

    def run(
        self,
        data: NeuralData,
        folder: Path,
        *,
        workers: Workers,
        shard: Shard | None = None,
        progress: bool = False,
    ) -> Study:
        """Make the fits of a share, wait for those of the others, and return the study of all.

        A share is of each round the fits whose number modulo the number of shares says so. What is
        tried is a function of what is known, so all shares know of the same tasks.

        Args:
            data: as they are without a search.
            folder: of the study, which other shares may hold, too.
            workers: that make the fits.
            shard: the share; None: all fits.
            progress: whether a progress bar is shown.

        Raises:
            InputError: if the folder holds anything else, or the settings as they are cannot be
                fitted.
        """
        shard = shard or Shard()
        study = Study.opened(folder, self._facts(data))
        first = study.records.get(0)
        if first is not None and first.error is not None:  # it shall be tried again
            study.forget(0, written=shard.has(0))
        known = min(len(study.records), self.num_fits)
        bar = progress_bar(self.num_fits, initial=known, work="tune", unit="fit", show=progress)
        away = replace(study, folder=folder.absolute(), records={})  # as a worker sees it
        one = partial(fit_of_task, copy.copy(data), self.stages, away.place)
        with bar:
            for tasks in self._rounds(study, max(TOGETHER, workers.at_once * shard.whole)):
                own = [task for task in tasks if shard.has(task.number)]
                with closing(workers.answers(one, own, bar=bar)) as records:
                    for record in records:
                        if record.score is not None and not study.place(record.number).exists():
                            raise InputError(
                                f"out_dir {str(folder)!r} must lie on a disk that all workers see; "
                                f"fit {record.number} was written elsewhere"
                            )
                        study.add(record)
                        _check_first(study)
                for _ in wait_for(study, [task.number for task in tasks], bar=bar):
                    _check_first(study)
        if self.search == "pbt":  # whose scores tell of generations, too
            return study
        return replace(
            study, importance=importances(self.space, study.tried(), seed=self.config["seed"])
        )

    def _rounds(self, study: Study, count: int) -> Iterator[list[Task]]:
        if self.search == "pbt":
            return evolution(study, self.space, **self.sizes)
        return rounds(study, self.space, num_fits=self.num_fits, count=count)

    def _facts(self, data: NeuralData) -> dict[str, Any]:
        of_data = {**self.config["data"]["init_args"], "source": None}
        return {
            "search": self.search,
            "config": {**self.config, "data": of_data},
            "former": self.former,
            "space": {name: spelled(one) for name, one in self.space.items()},
            "seed": self.config["seed"],
            "checksum": data.recording.checksum,
            **(self.sizes if self.search == "pbt" else {}),
        }

    def config_with(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the complete config with other settings."""
        config = self.config
        for setting in settings.items():
            config = override(fit, config, setting, trust=True)
        return config

    def write(self, study: Study) -> str:
        """Write what came of it; return the name of its picture."""
        from seqvae.plotting import lineage, search_history

        best = study.best
        config = dict(self.config_with(best.settings))
        write_text(study.folder / BEST, yaml.safe_dump(config, sort_keys=False))
        write_text(study.folder / "fits.csv", study.table.to_csv(index=False, lineterminator="\n"))
        summary = {
            "best": best.number,
            "score": best.score,
            "measure": best.measure,
            "gain": study.gain,
            "num_fits": len(study.records),
            "settings": dict(study.settings_of(best.number)),
            "importance": dict(study.importance),
        }
        write_text(study.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        words = {"space": study.facts["space"], "measure": best.measure or "score"}
        name, figure = "search.png", search_history(study.table, **words)
        if population := study.facts.get("population"):
            name, figure = "lineage.png", lineage(study.table, population=population, **words)
        with atomic_path(study.folder / name) as temporary:
            figure.savefig(temporary, format="png")
        return name


def config_of(
    data: NeuralData,
    model: ModelFactory | None,
    learner: Learner | LearnerFactory | None,
    seed: int,
) -> dict[str, Any]:
    """Return the complete config of the fit as it would be without a search."""
    if (suited := completed_fit(model, data, learner)) is not None:
        model, learner = suited
    assert model is not None
    learner = learner_of(learner, checked_class(model, seed=seed))
    return to_config({"seed": seed, "data": data, "model": model, "learner": learner})


def _former(config: Mapping[str, Any], name: str, values: Interval | Choice) -> Any:
    """Return what a setting was; see that it is there, and takes what it shall be searched for.

    Raises:
        InputError: naming it.
    """
    extremes = values.values if isinstance(values, Choice) else (values.low, values.high)
    try:
        for value in extremes:
            parts_of(override(fit, config, (name, value), trust=True))
        return setting_of(fit, config, name, trust=True)
    except InputError as error:
        raise InputError(f"space: {error}") from error


def _check_first(study: Study) -> None:
    """Refuse to search on where the settings as they are cannot be fitted."""
    first = study.records.get(0)
    if first is not None and first.error is not None:
        raise InputError(f"the settings as they are cannot be fitted: {first.error}")


def spelled(values: Interval | Choice) -> Any:
    """Return values of a setting as YAML spells them."""
    return list(values.values) if isinstance(values, Choice) else asdict(values)
