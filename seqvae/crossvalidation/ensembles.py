"""Ensembles in a grid: the mean of the rates of models that other cells have learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from seqvae.crossvalidation.job import MEAN_RATE, Cell, Job
from seqvae.errors import InputError, nearest

Ensembles: TypeAlias = Mapping[str, list[str] | dict[str, int]]
"""Names of models, each at every size of the grid, or models and the size of each, by a name."""


def checked_ensembles(
    ensembles: Ensembles | None, dims: Mapping[str, Sequence[int]], *, scheme: str
) -> dict[str, list[dict[str, int]]]:
    """Return for each ensemble the sizes of its members, once for each of its own sizes.

    The members are chosen by who asks, never by a score of the folds that they are scored on.

    Args:
        ensembles: as they are asked for.
        dims: the sizes of each model.
        scheme: of the cross-validation.

    Raises:
        InputError: for models or sizes that the grid has not, or a name that is taken.
    """
    rows: dict[str, list[dict[str, int]]] = {}
    for name, members in (ensembles or {}).items():
        key = f"ensembles.{name}"
        if scheme == "gabriel":
            raise InputError(f"{key}: scheme 'gabriel' factorises a matrix; leave ensembles out")
        if name in dims or name == MEAN_RATE:
            raise InputError(f"{key}: {name!r} is a model; give the ensemble another name")
        for member in members:
            if member not in dims:
                raise InputError(f"{key}: {member!r} is no model{nearest(member, dims)}")
        if len(set(members)) < max(2, len(members)):
            raise InputError(f"{key} must hold at least two models, each once, got {members!r}")
        if isinstance(members, Mapping):
            for member, dim in members.items():
                if dim not in dims[member]:
                    raise InputError(
                        f"{key}.{member}: {dim} is not one of dims {list(dims[member])}"
                    )
            rows[name] = [dict(members)]
        else:
            shared = set.intersection(*(set(dims[member]) for member in members))
            if not shared:
                raise InputError(f"{key}: its members share no size; give the size of each")
            rows[name] = [dict.fromkeys(members, dim) for dim in sorted(shared)]
    return rows


def ensemble_jobs(
    ensembles: Mapping[str, Sequence[Mapping[str, int]]], chains: Sequence[Sequence[Job]]
) -> list[Job]:
    """Return a job for each ensemble, size, fold and seed: to score, with nothing to learn.

    The size of an ensemble is the largest of its members'. A member that is learned once for all
    folds of neurons serves the ensemble of each.

    Args:
        ensembles: as ``checked_ensembles`` returns them.
        chains: the jobs of the grid, those of the members with weights that are kept.
    """
    jobs = {job.cell: job for chain in chains for job in chain if job.factory is not None}
    together = []
    for name, rows in ensembles.items():
        for sizes in rows:
            cells = [cell for cell in jobs if sizes.get(cell.model) == cell.dim]
            places = {(cell.trial_fold, cell.neuron_fold, cell.seed) for cell in cells}
            if len({fold is None for _, fold, _ in places}) > 1:
                places = {place for place in places if place[1] is not None}
            for trial_fold, neuron_fold, seed in sorted(places, key=str):
                members = tuple(
                    _member(jobs, Cell(model, dim, trial_fold, neuron_fold, seed))
                    for model, dim in sizes.items()
                )
                together.append(
                    Job(
                        cell=Cell(name, max(sizes.values()), trial_fold, neuron_fold, seed),
                        facts={"members": [member.key for member in members]},
                        factory=None,
                        learner=None,
                        division=members[0].division,
                        kind=members[0].kind,
                        num_samples=members[0].num_samples,
                        k_shot=members[0].k_shot,
                        settings=members[0].settings,
                        folder=members[0].folder,
                        members=members,
                    )
                )
    return together


def _member(jobs: Mapping[Cell, Job], cell: Cell) -> Job:
    """Return the job of a cell, or the one that serves all folds of neurons."""
    whole = Cell(cell.model, cell.dim, cell.trial_fold, None, cell.seed)
    return jobs[cell] if cell in jobs else jobs[whole]
