"""Search for settings of a model that predict held-in validation data best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from seqvae.compute.termination import terminable
from seqvae.compute.workers import Workers
from seqvae.data import as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError, Terminated, nearest
from seqvae.learning import Learner, LearnerFactory
from seqvae.runs import ModelFactory
from seqvae.storage.shards import Shard, locked_share
from seqvae.tuning import Study, as_space, default_space
from seqvae.tuning.logs import log_to_wandb
from seqvae.tuning.proposals import require_optuna
from seqvae.verbs.fit import fit
from seqvae.verbs.generation_stages import changes_shapes
from seqvae.verbs.searching import BEST, Search, config_of

SHOWN = 5
"""Fits in the table that is printed."""
SEARCHES = ("tpe", "random", "pbt")
POPULATION = {"population": 8, "generations": 10}


def tune(
    data: DataLike,
    model: ModelFactory | None = None,
    learner: Learner | LearnerFactory | None = None,
    *,
    space: dict[str, Any] | None = None,
    search: Literal["tpe", "random", "pbt"] = "tpe",
    num_fits: int | None = None,
    population: int | None = None,
    generations: int | None = None,
    bin_width: BinWidth = None,
    out_dir: str | None = None,
    jobs: int = 1,
    backend: Literal["loky", "ray", "dask"] = "loky",
    ray_remote_args: dict[str, float] | None = None,
    shard: str | None = None,
    seed: int = 0,
    wandb_project: str | None = None,
    progress: bool = True,
) -> Study:
    """Search for settings by which a model predicts held-in validation data best.

    Every fit learns from the training trials and is scored on the validation trials by the bound of
    the held-in neurons, in nats per trial (by the log-likelihood per entry where a posterior is a
    point, and then nothing may be held out): held-out neurons, forecast bins and test trials take
    no part, so that they can tell afterwards what the search was worth. The first fit has the
    settings as they are. A second call with the same folder goes on where the first one ended, and
    with more ``num_fits`` searches on.

    Args:
        data: the recording, how it is split, and what inference may see.
        model: factory of the model; None, and what is not said of a ``NonlinearDynamics``: as
            ``fit`` learns it.
        learner: how it is learned; None: as ``fit`` learns it.
        space: what may vary, by the dotted name of the setting: ``{low: 0.001, high: 0.02, log:
            true}`` or a list of choices; None: dropout, learning rate and weight decay, those of
            them that the model has, else the number of its latents.
        search: ``tpe``, by an estimator of what the good settings have in common (Optuna);
            ``random``; or ``pbt``, population-based training, in which settings change while
            members learn, and those that do well lend weights and settings to others.
        num_fits: fits in all, the first one among them; None: 30. A population makes as many as its
            generations have members.
        population: members, of ``pbt`` only; None: 8.
        generations: into which the epochs of the learner are divided, of ``pbt`` only; None: 10.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        out_dir: folder of the study; None makes one under ``studies/`` named by time.
        jobs: fits at a time, each on one core; -1: one for each core. Up to four change nothing
            that is tried: settings are proposed for four fits at once, or for as many as are made
            at a time, which know of all before.
        backend: where they are made: ``loky`` (processes), ``ray`` or ``dask`` (a cluster).
        ray_remote_args: of Ray's workers, such as ``{num_gpus: 1}``.
        shard: ``2/4`` makes the second of four shares of the fits, for an array of cluster jobs on
            one folder, each of which waits for the fits of the others before it tries what follows
            from them; the study is that of one command.
        seed: of the search, and of every fit.
        wandb_project: log a run for each fit, and table and picture, to this project of Weights &
            Biases, in a group of the folder's name.
        progress: whether a progress bar is shown.

    Returns:
        The study: ``table``, ``best``, ``run()`` of the best fit, ``importance`` of the settings.

    Raises:
        InputError: for anything the user can mend; no fit is begun then.
    """
    require_optuna()
    sizes = _sizes(search, num_fits, population, generations)
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    workers, part = Workers(jobs, backend, ray_remote_args), Shard.parse(shard)
    data = as_data(data, bin_width)
    data.setup()
    if "val" not in data.split:
        raise InputError("tune needs validation trials to score by: set data.val_fraction")
    config = config_of(data, model, learner, seed=seed)
    values = as_space(space) if space is not None else None
    if values is None:
        num_heldin, adapts = data.spec.num_heldin, search == "pbt"
        values = default_space(fit, config, num_heldin=num_heldin, adapts=adapts)
        for name in changes_shapes(config, values, data) if adapts else ():
            del values[name]
    if not values:
        raise InputError("space is required: this model has no setting that is searched by default")
    whole = Search.of(config, values, data, search=search, sizes=sizes)
    folder = Path(out_dir or f"studies/{datetime.now():%Y%m%d-%H%M%S}")
    with _held(folder, part):
        study = whole.run(data, folder, workers=workers, shard=part, progress=progress)
        picture = whole.write(study)
        if wandb_project is not None and part.part == 1:  # what the others know, too
            log_to_wandb(study, picture=picture, project=wandb_project)
    return study


def shown(study: Study, arguments: Mapping[str, Any]) -> str:
    """Lay out the best fits, the first one, which settings matter, and what to do next."""
    best, names = study.best, list(study.facts["space"])
    known = {n: record for n, record in study.records.items() if record.score is not None}
    order = sorted(known, key=lambda n: (-(known[n].score or 0.0), n))
    shown_fits = list(dict.fromkeys([*order[:SHOWN], *([0] if 0 in known else [])]))
    rows = [["fit", best.measure or "score", *names]]
    for number in shown_fits:
        settings = study.settings_of(number)
        values = [_short(settings[name]) for name in names]
        rows.append([str(number), f"{known[number].score:.4f}", *values])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        f"best {min(SHOWN, len(known))} of {len(study.records)} fits, by {best.measure} on the "
        "validation trials; fit 0: the settings as they were",
        *("  ".join(map(str.rjust, row, widths)) for row in rows),
    ]
    if failed := len(study.records) - len(known):
        lines.append(f"{failed} fits failed; fits.csv tells why")
    if study.importance:
        shares = [f"{name} {share:.0%}" for name, share in study.importance.items()]
        lines.append(f"share of the differences by setting: {', '.join(shares)}")
    if best.number == 0:
        lines.append("no other settings scored higher")
    elif study.gain is not None:
        lines.append(
            f"gain {study.gain:.4f}, flattered by the choice among {len(known)}: score both on "
            "trials that took no part"
        )
    lines.append(f"study: {study.folder}")
    if best.parent is not None:
        lines += [
            f"seqvae evaluate {study.place(best.number)}",
            f"({BEST} has the settings that it ended with, which were others before: lineage.png)",
        ]
    elif best.number != 0:
        lines.append(f"seqvae fit --config {study.folder / BEST} --run_dir NEW")
    return "\n".join(lines)


def _sizes(
    search: str, num_fits: int | None, population: int | None, generations: int | None
) -> dict[str, int]:
    """Return how many fits, or how large a population, and for how many generations.

    Raises:
        InputError: for a size that the search has not, or that is too small.
    """
    if search not in SEARCHES:
        raise InputError(f"search {search!r} is unknown{nearest(search, SEARCHES)}")
    given = {"num_fits": num_fits, "population": population, "generations": generations}
    own = POPULATION if search == "pbt" else {"num_fits": 30}
    for name, number in given.items():
        if number is None:
            continue
        if name not in own:
            cure = "population and generations" if search == "pbt" else "num_fits"
            raise InputError(f"{name} is none of search {search!r}; give {cure}")
        if number < 2:
            raise InputError(f"{name} must be at least 2, got {number}")
    return {name: given[name] or default for name, default in own.items()}


@contextmanager
def _held(folder: Path, shard: Shard) -> Iterator[None]:
    """Keep other commands from the folder, and tell how to go on."""
    with terminable(), locked_share(folder, shard, key="out_dir"):
        try:
            yield
        except Terminated as end:
            raise Terminated(
                "terminated; the fits that are done are kept, and the same command goes on"
            ) from end


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
