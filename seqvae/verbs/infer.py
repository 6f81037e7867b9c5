"""Infer rates, factors and latents with a learned model; writes posterior.nc."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from seqvae.analysis.devices import chosen_devices
from seqvae.analysis.merging import merged_dataset
from seqvae.analysis.posterior import posterior_dataset
from seqvae.analysis.stores import ZARR
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.runs import Run
from seqvae.verbs.merging import whole_of
from seqvae.verbs.opening import check_num_samples, check_out, open_run

if TYPE_CHECKING:
    import xarray as xr


def infer(
    run: Run | str,
    data: DataLike | None = None,
    *,
    bin_width: BinWidth = None,
    split: str = "all",
    session: str | None = None,
    num_samples: int = 50,
    devices: str | int = "auto",
    out: str | None = None,
    merged: bool = False,
    overlap: float = 0.5,
    variables: list[str] | None = None,
    dtype: Literal["float16", "float32"] = "float32",
    trust: bool = False,
) -> xr.Dataset:
    """Infer rates, factors and latents of every trial with a fitted model.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on; None takes those. Neurons are found by their
            ids where run and data have some, else by position, external inputs by position. All
            trials are taken, one long trial in windows as long as the trials that the run knows.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        split: "train", "val", "test" or "all" trials.
        session: of several sessions the trials and neurons of this one; None: the trials of all,
            and in each of them the neurons of all, as the model expects them.
        num_samples: posterior samples that are averaged; linear models need none.
        devices: "auto" shares the trials out over all GPUs there are, for a model that is learned
            by gradients, and else takes the CPU; or "cpu", or how many GPUs.
        out: netCDF file to write, or zarr store, if its name ends in .zarr (extra ``zarr``); it
            appears whole or not at all.
        merged: infer windows that overlap, as long as the trials that the run knows, and cross-fade
            them onto the time of the whole recording; gaps are NaN.
        overlap: share of a window that the next one has, too, where they are merged; 0 to below 1.
        variables: names of those to keep, such as rates and rates_sd; None: all.
        dtype: float32, or float16 for files half as large.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        Dataset with dims trial, time (s), neuron, factor; variables ``rates`` (Hz) or ``mean``,
        ``factors``, ``<latent>_mean``, each with its ``_sd``, ``elbo`` (nats per trial), and
        ``activity``, as it was recorded: what the figures of ``seqvae.plotting`` take.
        Merged it has neither activity nor a dim trial; time is that of the recording, in seconds.
    """
    opened = run, data, model, _ = open_run(run, data, trust, bin_width=bin_width)
    check_num_samples(num_samples)
    if session is not None:
        data, neurons = data.alone(session)
        with torch.no_grad():
            model = model.among(neurons)
    trials, chosen = data.trials(split), chosen_devices(model, devices)
    if out is not None:
        check_out(out, ".nc", ZARR)
    attributes = {
        "model": type(model).__name__,
        "run": run.hash,
        "num_samples": num_samples,
        **{f"{name}_version": run.provenance["versions"][name] for name in ("seqvae", "torch")},
    }
    infer_into = partial(posterior_dataset, model, data, trials)
    if merged:
        if session is not None:
            raise InputError("session: windows of one recording are merged; leave session out")
        whole = whole_of(opened, split=split, overlap=overlap)
        windows, chopped, axis = whole.data, whole.chopped, whole.axis
        infer_into = partial(merged_dataset, model, windows, chopped, axis, split=whole.split)
        attributes["overlap"] = overlap
    return infer_into(
        num_samples=num_samples,
        path=out,
        attributes=attributes,
        seed=run.seed,
        devices=chosen,
        work="infer",
        variables=variables,
        precision=dtype,
    )


def completed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Name the file of a command that names none: ``posterior.nc`` in the run folder."""
    out = arguments.get("out") or str(Path(str(arguments["run"])) / "posterior.nc")
    return {**arguments, "out": out}


def shown(posterior: xr.Dataset, arguments: Mapping[str, Any]) -> str:
    """Tell where the posterior lies, its sizes and its variables."""
    sizes = ", ".join(f"{name} {size}" for name, size in posterior.sizes.items())
    variables = ", ".join(map(str, posterior.data_vars))
    return f"posterior: {arguments['out']}\n  {sizes}\n  {variables}"
