"""Searches of settings in the cells of a cross-validation, so that models are compared as tuned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqvae.compute.workers import Workers
from seqvae.config import to_config
from seqvae.crossvalidation.job import Found, Job, Search
from seqvae.crossvalidation.learned import data_of, sized
from seqvae.crossvalidation.sizes import Sizes
from seqvae.data import NeuralData
from seqvae.errors import InputError, nearest
from seqvae.learning import Learner
from seqvae.learning.validation import validation_scores
from seqvae.runs import ModelFactory, begin
from seqvae.storage.locking import locked
from seqvae.tuning import as_space, default_space
from seqvae.tuning.proposals import require_optuna
from seqvae.verbs import searching
from seqvae.verbs.fit import fit
from seqvae.verbs.searched_fit import parts_of


@dataclass(frozen=True)
class CellSearch(Search):
    """The search of ``tune`` in a cell, of one size.

    Attributes:
        dimension: the dotted name of what ``dims`` sweeps, which is not searched.
    """

    dimension: str = ""

    def found(
        self, data: NeuralData, model: ModelFactory, learner: Learner, *, folder: Path, seed: int
    ) -> Found:
        """Fit, choose by the validation trials, and return the best fit, which is read again."""
        whole = self.search(data, model, learner, seed=seed)
        with locked(folder, key="the study"):
            study = whole.run(data, folder, workers=Workers())
            learned = study.run().model(trust=True)
        learned.seed = seed
        best = study.best
        factory, _, _ = parts_of(whole.config_with(best.settings))
        return Found(
            factory, learned, best.number, study.gain, dict(study.settings_of(best.number))
        )

    def search(
        self, data: NeuralData, model: ModelFactory, learner: Learner, *, seed: int
    ) -> searching.Search:
        """Return what is searched.

        Raises:
            InputError: if nothing can be, or not what was asked for.
        """
        data.setup()
        config = to_config({"seed": seed, "data": data, "model": model, "learner": learner})
        if self.space is None:
            space = default_space(fit, config, num_heldin=data.spec.num_heldin)
            space.pop(self.dimension, None)
        else:
            space = as_space(self.space)
        if not space:
            raise InputError(
                "no setting of it is searched by default; say in spaces what may vary, or {} to "
                "learn it as it is"
            )
        sizes = {"num_fits": self.num_fits}
        return searching.Search.of(config, space, data, search="tpe", sizes=sizes)


def cell_searches(
    num_fits: int | None,
    spaces: Mapping[str, Mapping[str, Any]] | None,
    sizes: Mapping[str, Sizes],
    *,
    scheme: str,
    others: Mapping[str, object],
    val_fraction: float,
) -> dict[str, Search]:
    """Return the search of each model; none for one of an empty space.

    Args:
        num_fits: in each cell; None: no search.
        spaces: what may vary, by the name of the model.
        sizes: what is swept of each model.
        scheme: of the cross-validation.
        others: arguments by name that do not go together with a search, if they are given.
        val_fraction: of the training rows.

    Raises:
        InputError: naming the argument.
    """
    if num_fits is None:
        if spaces:
            raise InputError("spaces are searched by num_tuning_fits in each cell; give that, too")
        return {}
    require_optuna()
    if num_fits < 2:
        raise InputError(f"num_tuning_fits must be at least 2, got {num_fits}")
    if scheme == "gabriel":
        raise InputError(
            "num_tuning_fits: scheme 'gabriel' factorises a matrix, which has no settings to "
            "search; leave it out"
        )
    for name in (name for name, given in others.items() if given):
        raise InputError(
            f"num_tuning_fits: {name} goes on from models of one setting, and each cell has its "
            f"own; leave {name} out"
        )
    if not val_fraction:
        raise InputError("num_tuning_fits needs validation trials: set data.val_fraction")
    for name in sorted(set(spaces or {}) - set(sizes)):
        raise InputError(f"spaces.{name} is no model{nearest(name, sizes)}")
    searches: dict[str, Search] = {}
    for name, own in sizes.items():
        space = (spaces or {}).get(name)
        if space == {}:
            continue
        dimension = f"model.{own.argument}"
        if space is not None:
            values = as_space(space)
            if dimension in values:
                raise InputError(f"spaces.{name}: {dimension} is what dims are for; leave it out")
            space = {setting: searching.spelled(one) for setting, one in values.items()}
        searches[name] = CellSearch(num_fits, space, dimension)
    return searches


def check_searches(jobs: Iterable[Job]) -> None:
    """See that the settings of each model and size can be searched, before any fit.

    Raises:
        InputError: naming the model.
    """
    seen = set()
    for job in jobs:
        place = (job.cell.model, job.cell.dim)
        if not isinstance(job.search, CellSearch) or place in seen:
            continue
        seen.add(place)
        assert job.factory is not None
        assert job.learner is not None
        factory = sized(job.factory, job.cell.dim, job.argument)
        data = data_of(job, job.division.heldin(job.cell.neuron_fold))
        try:
            job.search.search(data, factory, job.learner, seed=0)
            _check_bound(data, factory)
        except InputError as error:
            raise InputError(f"num_tuning_fits: models.{job.cell.model}: {error}") from error


def _check_bound(data: NeuralData, factory: ModelFactory) -> None:
    """Refuse a model whose score on the validation trials would know what is held out."""
    if data.spec.heldout:
        with torch.random.fork_rng():
            scores = validation_scores(begin(factory, data), data)
        if "val/heldin_elbo" not in scores:
            raise InputError(
                "a posterior that is a point has no bound of the held-in neurons to choose by; "
                "give its spaces as {} to learn it as it is"
            )


def cost(num_fits: int, num_cells: int) -> str:
    """Say what searches will cost."""
    return f"{num_fits} fits in each of {num_cells} cells: {num_fits * num_cells} fits"
