"""A posterior in the containers of other tools: tables, MATLAB, pynapple."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seqvae.errors import InputError, nearest
from seqvae.storage.files import Lenient, atomic_path

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_BY_TRIAL = ("split", "condition", "start_time", "start", "event_time", "segment_id")
_MOST_BYTES = 2_000_000_000


def to_table(posterior: xr.Dataset, variable: str | None = None) -> pd.DataFrame:
    """Return a variable as a table: a row for each trial and bin, a column for each neuron.

    First come ``trial``, ``time`` and what is known of the trial, such as its ``condition``. Bins
    past the end of a trial have no row.

    Args:
        posterior: as ``infer`` returns it.
        variable: of the posterior, such as ``factors``; None: its rates.

    Raises:
        InputError: for a variable that is not there.
    """
    import pandas as pd

    values = _chosen(posterior, variable)
    leading = [dim for dim in ("trial", "time") if dim in values.dims]
    values = values.transpose(*leading, ...)
    index = pd.MultiIndex.from_product([posterior[dim].values for dim in leading], names=leading)
    columns: dict[str, Any] = {name: index.get_level_values(name) for name in leading}
    repeats = int(np.prod([posterior.sizes[dim] for dim in leading[1:]]))
    for name in _BY_TRIAL:
        if name in posterior.coords and leading[:1] == ["trial"]:
            columns[name] = np.repeat(posterior[name].values, repeats)
    flat = values.values.reshape(len(index), -1)
    names = [values.name]
    if values.ndim > len(leading):
        dim = str(values.dims[-1])
        names = [f"{dim} {label}" for label in _labels(posterior, dim)]
    table = pd.concat([pd.DataFrame(columns), pd.DataFrame(flat, columns=names)], axis=1)
    return table[~np.isnan(flat).all(axis=1)].reset_index(drop=True)


def to_pynapple(posterior: xr.Dataset, variable: str | None = None) -> Any:
    """Return a variable as a ``pynapple.TsdFrame`` on the clock of the session.

    Each bin stands at its centre, in seconds; ``time_support`` holds the trials. What is past the
    end of a trial, and gaps, are left out.

    Args:
        posterior: as ``infer`` returns it, of trials that start at known times.
        variable: of the posterior, over time; None: its rates.

    Raises:
        InputError: if pynapple is missing, a variable is not there or not over time, nobody knows
            when trials begin, or trials overlap.
    """
    try:
        import pynapple
    except ImportError as error:
        raise InputError("to_pynapple needs pynapple: pip install 'seqvae[pynapple]'") from error
    values = _chosen(posterior, variable)
    width = posterior.attrs.get("bin_width")
    if width is None or values.dims[-2:-1] != ("time",):
        raise InputError(f"variable: {values.name} is not over time, or its bins have no width")
    if "trial" not in values.dims:  # merged: on the clock already
        starts, values = np.zeros(1), values.expand_dims("trial")
        offset = posterior["time"].values - posterior["time"].values[0]
        starts = posterior["time"].values[:1]
    else:
        offset = np.arange(posterior.sizes["time"]) * width
        name = next((one for one in ("start_time", "start") if one in posterior.coords), None)
        if name is None:
            raise InputError(
                "posterior: nobody knows when its trials begin; give the recording start_times, "
                "seconds on the clock of the session, and infer again"
            )
        starts = posterior[name].values
    order = np.argsort(starts, kind="stable")
    trials, starts = values.values[order], starts[order]
    is_there = ~np.isnan(trials).all(axis=-1)
    lengths = np.where(is_there, np.arange(1, len(offset) + 1), 0).max(axis=1)
    ends = starts + lengths * width
    if (overlap := np.flatnonzero(starts[1:] < ends[:-1] - 1e-9)).size:
        raise InputError(
            f"posterior: trial {posterior['trial'].values[order][overlap[0] + 1]!s} begins before "
            "the one before it ends; infer with merged=True, or choose trials apart"
        )
    times = (starts[:, None] + offset + width / 2)[is_there]
    support = pynapple.IntervalSet(start=starts, end=ends)
    labels = _labels(posterior, str(values.dims[-1]))
    return pynapple.TsdFrame(t=times, d=trials[is_there], columns=labels, time_support=support)


def write_table(posterior: xr.Dataset, path: str, *, variable: str | None = None) -> None:
    """Write a variable as a CSV file; it appears whole or not at all."""
    table = to_table(posterior, variable)
    with atomic_path(path) as draft:
        table.to_csv(draft, index=False)


def write_mat(posterior: xr.Dataset, path: str) -> None:
    """Write a posterior as a MATLAB file: each variable and coordinate an array of its name.

    Names of neurons, conditions and the like are cells of text. ``dims`` tells the axes of each
    variable.

    Raises:
        InputError: for more than a file of this kind can hold.
    """
    from scipy.io import savemat

    if posterior.nbytes > _MOST_BYTES:
        raise InputError(
            f"out: the posterior takes {posterior.nbytes / 1e9:.1f} GB, more than a MAT file of "
            "version 5 holds; choose --variables, or take the netCDF file of infer, which MATLAB's "
            "ncread reads"
        )
    arrays: dict[str, Any] = {}
    arrays |= {
        str(name): _for_matlab(values.values) for name, values in posterior.variables.items()
    }
    arrays["dims"] = {
        str(name): ", ".join(map(str, values.dims)) for name, values in posterior.data_vars.items()
    }
    arrays["attributes"] = {name: str(value) for name, value in posterior.attrs.items()}
    with atomic_path(path) as draft, Lenient(draft) as raw:
        savemat(raw, arrays, do_compression=True, oned_as="column", long_field_names=True)
        raw.check()


def _chosen(posterior: xr.Dataset, variable: str | None) -> xr.DataArray:
    name = variable or ("rates" if "rates" in posterior else "mean")
    if name not in posterior.data_vars:
        raise InputError(
            f"variable: there is no {name!r}{nearest(name, list(map(str, posterior.data_vars)))}"
        )
    return posterior[name]


def _labels(posterior: xr.Dataset, dim: str) -> list[Any]:
    labels = posterior[dim].values if dim in posterior.coords else np.arange(posterior.sizes[dim])
    return list(labels.tolist())


def _for_matlab(values: np.ndarray) -> np.ndarray:
    return values.astype(object) if values.dtype.kind in "UST" else values
