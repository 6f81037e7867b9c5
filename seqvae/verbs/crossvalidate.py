"""Find how many latent dimensions the data support, and with which model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seqvae.compute.workers import Workers
from seqvae.crossvalidation.cell import read_result, undone
from seqvae.crossvalidation.choice import RULES, Rule
from seqvae.crossvalidation.division import Division, Scheme
from seqvae.crossvalidation.ensembles import Ensembles, checked_ensembles, ensemble_jobs
from seqvae.crossvalidation.folder import held, replaced_scores, replaced_words, write_results
from seqvae.crossvalidation.growth import growth, growth_lines
from seqvae.crossvalidation.intervals import gap_words
from seqvae.crossvalidation.jobs import run_jobs
from seqvae.crossvalidation.logs import check_wandb, log_to_wandb
from seqvae.crossvalidation.panel.matrix import check_panel
from seqvae.crossvalidation.panel.summary import panel_lines, panel_summary
from seqvae.crossvalidation.plan import checked_models, make_plan, suited
from seqvae.crossvalidation.result import CrossValidation
from seqvae.crossvalidation.sizes import Dims, Sweep, checked_sizes, swept_words
from seqvae.crossvalidation.subsamples import checked_fractions, subsampled
from seqvae.crossvalidation.table import FEW_FOLDS, scores_table, summarize, tuned_table
from seqvae.data import as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError, nearest
from seqvae.learning import Learner, LearnerFactory
from seqvae.learning.observers import tell
from seqvae.runs import ModelFactory
from seqvae.storage.shards import Shard
from seqvae.verbs.cell_search import cell_searches, check_searches, cost

SCHEME_CHOICES = ("auto", "fold_in", "gabriel", "speckled")
ROW_CHOICES = ("auto", "trials", "blocks", "random")


def crossvalidate(
    data: DataLike,
    models: Mapping[str, ModelFactory] | None = None,
    learners: Mapping[str, Learner | LearnerFactory] | None = None,
    *,
    dims: Dims,
    sweep: Sweep | None = None,
    subsample: list[float] | None = None,
    bin_width: BinWidth = None,
    trial_folds: int = 5,
    neuron_folds: int = 4,
    scheme: Literal["auto", "fold_in", "gabriel", "speckled"] = "auto",
    rows: Literal["auto", "trials", "blocks", "random"] = "auto",
    gap: int | None = None,
    rule: Rule = "paired_1se",
    seeds: int = 1,
    seed: int = 0,
    num_samples: int = 50,
    k_shot: int = 0,
    warm_starts: bool = False,
    ensembles: Ensembles | None = None,
    panel: bool = False,
    num_tuning_fits: int | None = None,
    spaces: dict[str, dict[str, Any]] | None = None,
    out_dir: str | None = None,
    jobs: int = 1,
    backend: Literal["loky", "ray", "dask"] = "loky",
    ray_remote_args: dict[str, float] | None = None,
    shard: str | None = None,
    wandb_project: str | None = None,
    wandb_cells: bool = False,
    progress: bool = True,
) -> CrossValidation:
    """Find how many latent dimensions the data support, and which model deserves them.

    Every model of every size is learned on the same training rows and scored on held-out neurons
    of held-out rows, which it infers from the other neurons; counts in bits per spike, other data
    in nats per entry. A second call with the same folder goes on where the first one ended.

    Args:
        data: the recording, and how a model is given it (batch size, dropout). Trials that the
            file or the fractions keep for the test take no part; those kept for validation do, as
            any other, and each learner that selects takes its own from the training rows.
        models: factory of each model by name; None: ``default``, what ``fit`` learns without a
            model (``seqvae.learning.default_fit``); with scheme ``gabriel``: ``PCA``.
        learners: how a model is learned, by its name; others by their own with its defaults.
        dims: the sizes to try, of each model's own dimension, for all models or by the name of
            each; 0, the mean rate, is always there.
        sweep: another whole number of the models that takes the values of ``dims``, such as
            ``num_states``, for all models or by the name of those that have it.
        subsample: fractions of the trials to learn from, ascending up to 1, such as
            ``[0.25, 0.5, 1]``: how score and dimension grow with trials, and what more would bring.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        trial_folds: folds of trials, or of blocks; with scheme ``speckled`` of entries.
        neuron_folds: folds of neurons.
        scheme: ``fold_in`` (co-smoothing; ``auto``), for every model; ``gabriel`` (Owen & Perry),
            for the factorisation of a matrix whose rows are time bins; ``speckled`` (Wold): single
            entries are held out.
        rows: whole ``trials``, contiguous ``blocks`` of one long recording, single bins at
            ``random``; ``auto``: blocks for one trial, else trials.
        gap: bins left out on either side of a block; None: as long as the activity remembers.
        rule: how the dimension is chosen: ``paired_1se``, ``min``, ``1se``, or ``within_1pct``, the
            smallest that has 99 % of what the best one gains.
        seeds: repetitions of each cell, averaged.
        seed: of the folds, and mixed into that of every cell.
        num_samples: posterior samples of the score.
        k_shot: training trials for a second, few-shot score; 0: none.
        warm_starts: each size begins where the next smaller one of the same fold ended; fewer
            cells then run at a time. For learners that begin from a model's parameters.
        ensembles: by a name models of the grid whose rates are averaged, nothing being learned
            again: ``{all: [plds, flds]}`` at every size, or ``{all: {plds: 8, flds: 16}}`` at these
            of ``dims``. Its own size is the largest of its members'.
        panel: ask other estimators of the number of latents, too, of all rows: parallel analysis,
            hard threshold, participation ratio, ARD and, with ``k_shot``, few-shot co-smoothing.
        num_tuning_fits: in each cell search the settings of the model by so many fits, as ``tune``
            does, on its training rows only: those of them that validate choose, and the best fit is
            scored. The first one has the settings as they are.
        spaces: what may vary, by the name of the model, as ``space`` of ``tune``: ``{flds:
            {model.dropout: {low: 0, high: 0.6}}}``; {} learns a model as it is; None: what ``tune``
            searches, without the dimension.
        out_dir: folder of the results; None makes one under ``cv/`` named by time.
        jobs: cells at a time, each on one core; -1: one for each core.
        backend: where they run: ``loky`` (processes), ``ray`` or ``dask`` (a cluster).
        ray_remote_args: of Ray's workers, such as ``{num_gpus: 1}``.
        shard: ``2/8`` does the second of eight shares of the cells, for an array of cluster jobs
            on one folder; the one that ends last writes the summary.
        wandb_project: log table and curve to this project of Weights & Biases.
        wandb_cells: log one run for each cell, too.
        progress: whether a progress bar is shown.

    Returns:
        The scores, and the summary with the chosen dimension of each model and the best model.

    Raises:
        InputError: for anything the user can mend; no cell is begun then.
    """
    data = as_data(data, bin_width)
    for name, word, choices in (
        ("scheme", scheme, SCHEME_CHOICES), ("rows", rows, ROW_CHOICES), ("rule", rule, RULES),
    ):  # fmt: skip
        if word not in choices:
            raise InputError(f"{name} {word!r} is unknown{nearest(word, choices)}")
    for name, number, least in (
        ("seeds", seeds, 1), ("seed", seed, 0), ("num_samples", num_samples, 1),
        ("k_shot", k_shot, 0),
    ):  # fmt: skip
        if number < least:
            raise InputError(f"{name} must be at least {least}, got {number}")
    chosen: Scheme = "fold_in" if scheme == "auto" else scheme
    if k_shot and chosen != "fold_in":
        raise InputError(f"k_shot needs held-out neurons: scheme 'fold_in', not {chosen!r}")
    workers, part = Workers(jobs, backend, ray_remote_args), Shard.parse(shard)
    check_wandb(wandb_project, wandb_cells)
    fractions = checked_fractions(subsample)
    factories = checked_models(models, scheme=chosen)
    sizes = checked_sizes(dims, sweep, factories, scheme=chosen)
    for name in sorted(set(learners or {}) - set(factories)):
        raise InputError(f"learners.{name} is no model{nearest(name, factories)}")

    searches = cell_searches(
        num_tuning_fits,
        spaces,
        sizes,
        scheme=chosen,
        others={"warm_starts": warm_starts, "ensembles": ensembles},
        val_fraction=data.val_fraction,
    )
    dims_of = {name: own.dims for name, own in sizes.items()}
    grouped = checked_ensembles(ensembles, dims_of, scheme=chosen)
    folder = Path(out_dir or f"cv/{datetime.now():%Y%m%d-%H%M%S}")
    recording = data.pool()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*neurons")  # told when they were loaded
        division = Division.of(
            recording,
            scheme=chosen,
            rows=rows,
            trial_folds=trial_folds,
            neuron_folds=neuron_folds,
            gap=gap,
            seed=seed,
        )
        plans = [
            make_plan(
                data,
                one,
                *suited(factories, learners or {}, data=data, division=one),
                sizes=sizes,
                seeds=seeds,
                num_samples=num_samples,
                k_shot=k_shot,
                warm_starts=warm_starts,
                folder=folder,
                members={name for rows in grouped.values() for row in rows for name in row},
                searches=searches,
            )
            for one in subsampled(division, fractions)
        ]
    if panel:
        check_panel(division.recording)
    check_searches(job for chain in plans[-1].chains for job in chain)
    unit = plans[-1].unit
    for sentence in plans[-1].unread:
        warnings.warn(sentence, stacklevel=2)
    chains = [chain for plan in plans for chain in plan.chains]
    together = [job for plan in plans for job in ensemble_jobs(grouped, plan.chains)]
    todo = [*(job for chain in chains for job in chain), *together]
    mine = part.of(chains)
    with held(folder, recording.checksum, part):
        pending = [rest for chain in mine if (rest := undone(chain))]
        run = partial(run_jobs, workers=workers, progress=progress)
        if num_tuning_fits is not None:
            num_cells = sum(job.search is not None for chain in pending for job in chain)
            tell([cost(num_tuning_fits, num_cells)])
        num_done = sum(map(len, mine)) - sum(map(len, pending))
        with closing(run(pending, num_done=num_done)) as results:
            by_key = {result["key"]: result for result in results}
        for job in todo:  # of former calls and other shards
            if job.key not in by_key and (result := read_result(job)) is not None:
                by_key[job.key] = result
        ready = [job for job in together if all(one.key in by_key for one in job.members)]
        left = [[job] for job in ready if job.key not in by_key]
        if left:
            with closing(run(left, num_done=len(ready) - len(left))) as results:
                by_key |= {result["key"]: result for result in results}
    swept = swept_words(sizes)
    tables = [
        scores_table(
            [
                by_key[job.key]
                for job in todo
                if job.division.fraction == fraction and job.key in by_key
            ],
            unit=unit,
            k_shot=bool(k_shot),
            swept=swept if sweep else None,
        )
        for fraction in fractions
    ]
    table = tables[-1]
    if missing := len(todo) - len(by_key):
        return CrossValidation(folder, table, None, missing)
    _tell_failures(by_key.values(), folder, swept)
    facts = {
        "scheme": chosen, "rows": division.rows, "gap": division.gap, "trial_folds": trial_folds,
        "neuron_folds": neuron_folds, "seeds": seeds, "seed": seed,
        "trials": division.recording.num_trials, "neurons": division.recording.num_neurons,
    }  # fmt: skip
    if num_tuning_fits is not None:
        facts["num_tuning_fits"] = num_tuning_fits
    names = [*factories, *grouped]
    summary = facts | summarize(
        table,
        names,
        rule=rule,
        unit=unit,
        k_shot=bool(k_shot),
        fixed=[name for name, members in (ensembles or {}).items() if isinstance(members, Mapping)],
        swept=swept | dict.fromkeys(grouped, " or ".join(dict.fromkeys(swept.values()))),
    )
    if panel:
        summary["panel"] = panel_summary(
            division.recording.read(),
            table,
            summary,
            counts=todo[0].kind.counts_events,
            rule=rule,
            k_shot=k_shot,
            seed=seed,
        )
    if subsample is not None:
        num_trials = division.recording.num_trials
        summary["growth"] = growth(tables, summary, fractions=fractions, num_trials=num_trials)
    tuned = tuned_table(by_key.values()) if searches else None
    if num_replaced := replaced_scores(folder, table):
        tell([replaced_words(folder, num_replaced)])
    write_results(folder, tables, summary, tuned=tuned)
    if wandb_project is not None:
        log_to_wandb(folder, table, summary, project=wandb_project, cells=wandb_cells)
    return CrossValidation(folder, table, summary, tuned=tuned)


def shown(result: CrossValidation, arguments: Mapping[str, Any]) -> str:
    """Lay out a cross-validation: a row for each size, a column for each model, * the chosen."""
    if result.summary is None:
        return (
            f"results: {result.folder}\n{result.num_missing} cells are still to be done, by other "
            "shards or another call"
        )
    from seqvae.plotting.dimensions import swept_of

    summary, models = result.summary, result.summary["models"]
    dims = sorted({dim for told in models.values() for dim in told["dims"]})
    swept = swept_of(summary)
    lines = [[swept, *models]]
    for dim in dims:
        cells = []
        for told in models.values():
            scores = dict(zip(told["dims"], told["mean"], strict=True))
            mark = "*" if dim == told["chosen_dim"] else " "
            absent = "failed " if dim in told["failed_dims"] else "- "
            cells.append(f"{scores[dim]:.4f}{mark}" if dim in scores else absent)
        lines.append([str(dim), *cells])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    laid = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    sets = [
        f"{name}: not excluded as the best {swept_of(told)} at 95 %: "
        f"{', '.join(map(str, told['confidence_set']))}"
        for name, told in models.items()
        if summary["folds"]["rows"] > FEW_FOLDS  # else a note says that there can be none
    ]
    best = summary["best_model"]
    gaps = [
        f"{best} exceeds {name} by {gap_words(gap)}" for name, gap in summary["differences"].items()
    ]
    unit = summary["unit"].replace("_", " ")
    head = f"held-out score in {unit}; * chosen by {summary['rule']}; 0 is the mean rate"
    notes = [f"note: {note}" for note in summary["notes"]]
    if result.tuned is not None:
        num_former = int((result.tuned["best_fit"] == 0).sum())
        notes.append(
            f"settings: in {num_former} of {len(result.tuned)} cells none scored higher than those "
            f"as given; all of them: {result.folder / 'tuned.csv'}"
        )
    told = [*sets, *gaps, *notes, *panel_lines(summary), *growth_lines(summary)]
    return "\n".join([head, *laid, *told, f"results: {result.folder}"])


def _tell_failures(results: Any, folder: Path, swept: Mapping[str, str]) -> None:
    failed = [result for result in results if result["status"] != "done"]
    if failed:
        cell, error = failed[0]["cell"], failed[0]["error"].strip().splitlines()[-1]
        word = swept.get(cell["model"], "dimension")
        warnings.warn(
            f"{len(failed)} cells failed and will be tried again by the next call; the first, "
            f"{cell['model']} of {word} {cell['dim']}: {error} (see {folder / 'cells'})",
            stacklevel=3,
        )
