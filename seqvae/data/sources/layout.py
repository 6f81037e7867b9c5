"""How the fields of a recording are named in a file, shared by the formats."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from seqvae.data.padding import without_padding
from seqvae.data.recording import Recording
from seqvae.data.sources.stored import MISSING, Stored, with_missing
from seqvae.errors import InputError, nearest

# One entry per field, by the field's own name: what the writers write.
FLAT = {field.name: field.name for field in fields(Recording)}
_READ = FLAT | {"lengths": "lengths"}  # of trials that are padded; written ones need none

# The common layout, one set of entries per split; recon = encod + held-out neurons at the end +
# forecast bins at the end. Counts per bin = truth x conversion factor.
COMMON = {
    "encoded": "{split}_encod_data",
    "activity": "{split}_recon_data",
    "inputs": "{split}_ext_input",
    "behavior": "{split}_behavior",
    "condition": "{split}_condition",
    "rates": "{split}_truth",
    "trial_ids": "{split}_inds",
    "lengths": "{split}_length",
    "neuron_ids": "channel_index",
    "bin_width": "bin_width_s",
    "conversion_factor": "conversion_factor",
    "image_shape": "image_shape",
}
_FILE_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_PER_TRIAL = ("inputs", "behavior", "condition", "rates", "trial_ids", "lengths")
_MAY_LACK = ("behavior", "rates")  # a split without them has NaN


def read_recording(
    entries: Mapping[str, Any], keys: dict[str, str] | None, bin_width: float | None
) -> Recording:
    """Assemble a recording from the named entries of a file.

    Args:
        entries: arrays and scalars by name, read when asked for.
        keys: names of entries that differ from the default layout, by field; ``{split}`` in a
            name stands for train, valid and test.
        bin_width: seconds per bin, where the file does not say it.
    """
    keys = dict(keys or {})
    activity = keys.get("activity", COMMON["activity"] if "encoded" in keys else "activity")
    flat = "{split}" not in activity and ("activity" in keys or activity in entries)
    layout = _READ if flat else COMMON
    for field, name in keys.items():
        if field not in layout:
            raise InputError(f"keys names {field!r}, which is no field{nearest(field, layout)}")
        if "{split}" not in name:
            _take(entries, name)
    names = {**layout, **keys}
    if bin_width is None:
        stated = (names["bin_width"], "bin_width_s", "bin_width")
        bin_width = next((_scalar(entries, name) for name in stated if name in entries), None)
    if flat:
        values = {
            field: _activity_or_entry(entries, field, name)
            for field, name in names.items()
            if name in entries or field == "activity"
        }
        if "num_encoded_bins" in values:
            (values["num_encoded_bins"],) = _integers(entries, names["num_encoded_bins"], count=1)
    else:
        values = _read_splits(entries, names, chosen=set(keys))
        if "rates" in values:
            factor = names["conversion_factor"]
            scale = _scalar(entries, factor) if factor in entries else 1.0
            values["rates"] = values["rates"] * scale / (bin_width or 1.0)
    if "image_shape" in values:
        values["image_shape"] = tuple(_integers(entries, names["image_shape"], count=2))
    if "lengths" in values:
        values = without_padding(values, values.pop("lengths"))
    return Recording(**{**values, "bin_width": bin_width})


def is_own(entries: Collection[str]) -> bool:
    """Whether entries are those of one of the two layouts, so that their names tell all."""
    core = {COMMON[field].replace("{split}", "train") for field in ("encoded", "activity")}
    is_flat = "activity" in entries and {*entries} <= {*_READ, COMMON["bin_width"], MISSING}
    return is_flat or not core.isdisjoint(entries)


def recording_fields(recording: Recording, stored: Stored) -> dict[str, np.ndarray]:
    """Return what stands beside the activity, as arrays by name; text as UTF-8 bytes.

    Args:
        recording: of which the activity is left out.
        stored: how that is written.
    """
    values = {name: getattr(recording, name) for name in FLAT if name != "activity"}
    values |= {"neuron_ids": recording.neuron_names, MISSING: stored.missing}
    arrays = {name: np.asarray(v) for name, v in values.items() if v is not None}
    return {
        name: np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        for name, array in arrays.items()
    }


def _activity_or_entry(entries: Mapping[str, Any], field: str, name: str) -> Any:
    """Return an entry; large activity as it lies, to be read when it is asked for."""
    if field != "activity":
        return _take(entries, name)
    missing = int(_integers(entries, MISSING, count=1)[0]) if MISSING in entries else None
    if name in entries and hasattr(entries, "large"):
        lazy = entries.large(name, missing)
        if lazy is not None:
            return lazy
    return with_missing(_take(entries, name), missing)


def _take(entries: Mapping[str, Any], name: str) -> Any:
    if name not in entries:
        raise InputError(f"the file has no entry {name!r}{nearest(name, entries)}")
    array = np.asarray(entries[name])
    try:
        return _decoded(array)
    except ValueError as error:
        raise InputError(f"{name!r} holds text that is not UTF-8; write it again") from error


def _scalar(entries: Mapping[str, Any], name: str) -> float:
    value = _take(entries, name)
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise InputError(f"{name!r} must be one number, got {_described(value)}")
    return float(value.item())


def _integers(entries: Mapping[str, Any], name: str, *, count: int) -> list[int]:
    value = np.ravel(_take(entries, name))
    is_whole = value.dtype.kind in "iuf" and bool((np.floor(value) == value).all())
    if value.size != count or not is_whole or not np.isfinite(value).all():
        raise InputError(f"{name!r} must hold {count} whole number(s), got {_described(value)}")
    return [int(number) for number in value]


def _described(value: np.ndarray) -> str:
    return repr(value.tolist()) if value.size < 4 else f"{value.dtype} of shape {value.shape}"


def _decoded(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "O":
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel()]
        return np.array(text, dtype=str).reshape(array.shape)
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


def _read_splits(
    entries: Mapping[str, Any], names: dict[str, str], *, chosen: set[str]
) -> dict[str, Any]:
    core: tuple[str, ...] = ("encoded", "activity")
    if "activity" in chosen and "encoded" not in chosen:
        core = core[1:]
    parts: dict[str, dict[str, np.ndarray]] = {}
    for split in _FILE_SPLITS:
        word = _word(split, [names[field] for field in core], entries)
        named = {f: names[f].replace("{split}", word) for f in (*core, *_PER_TRIAL)}
        if any(named[field] in entries for field in core):
            needed = chosen | set(core[:1] if split == "test" else core)
            parts[split] = {
                field: _take(entries, name)
                for field, name in named.items()
                if field in needed or name in entries
            }
            _check_part(parts[split], named, core[0])
    if not parts:
        raise InputError(_no_activity(entries, names[core[0]]))
    values = _activity(names, parts)
    for field in _PER_TRIAL:
        holders = {split: part[field] for split, part in parts.items() if field in part}
        if not holders:
            continue
        shape = next(iter(holders.values())).shape[1:]
        for split, part in parts.items():
            if field not in part and field in _MAY_LACK:
                holders[split] = np.full((len(part[core[0]]), *shape), np.nan, dtype=np.float32)
        lacking = [split for split in parts if split not in holders]
        if lacking:
            pair = next(iter(holders)), lacking[0]
            there, absent = (names[field].replace("{split}", split) for split in pair)
            raise InputError(
                f"the file has {there!r} but no {absent!r}; give it for every split or for none"
            )
        values[field] = _joined(names[field], {split: holders[split] for split in parts})
    counts = [len(part[core[0]]) for part in parts.values()]
    values["split"] = np.repeat([_FILE_SPLITS[split] for split in parts], counts)
    for field in ("neuron_ids", "image_shape"):
        if names[field] in entries:
            values[field] = _take(entries, names[field])
    return values


def _word(split: str, templates: list[str], entries: Mapping[str, Any]) -> str:
    """Return how a file calls a split: val where it has that and no valid."""
    named = [[name.replace("{split}", word) in entries for name in templates]
             for word in ("valid", "val")]  # fmt: skip
    return "val" if split == "valid" and any(named[1]) and not any(named[0]) else split


def _no_activity(entries: Mapping[str, Any], template: str) -> str:
    """Say what a file holds in which no entry is known to be the activity."""
    listed = ", ".join(map(repr, list(entries)[:8])) + (", ..." if len(entries) > 8 else "")
    name = next((name for name in entries if name.startswith("train_")), "NAME")
    example, wanted = name.replace("train_", "{split}_", 1), template.replace("{split}", "train")
    meant = nearest(wanted, entries)
    meant = meant if "did you mean" in meant else ""  # all of them are listed
    return (
        f"the file has no entry 'activity', and no entry {wanted!r}{meant}; it holds {listed}; "
        f'say which one is the activity, --data.source.keys "{{activity: {example!r}}}", or let '
        "'seqvae check FILE --write_config mine.yaml' guess"
    )


def _check_part(part: dict[str, np.ndarray], names: dict[str, str], core: str) -> None:
    """Refuse activity that is no array of numbers, and entries of another number of trials."""
    for field, array in part.items():
        is_activity = field in ("encoded", "activity")
        if is_activity and (array.ndim != 3 or array.dtype.kind not in "biuf"):
            raise InputError(
                f"{names[field]!r} must hold numbers (trial, time, neuron), got {array.dtype} of "
                f"shape {array.shape}"
            )
        if array.ndim == 0 or (not is_activity and len(array) != len(part[core])):
            raise InputError(
                f"{names[field]!r} has shape {array.shape}, but {names[core]!r} has "
                f"{len(part[core])} trials; both must agree in trials"
            )


def _activity(names: dict[str, str], parts: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Join the splits; what was encoded must be the leading block of what is reconstructed."""
    whole = {split: part["activity"] for split, part in parts.items() if "activity" in part}
    encoded = {split: part["encoded"] for split, part in parts.items() if "encoded" in part}
    if not encoded:
        return {"activity": _joined(names["activity"], whole)}
    shape = _joined(names["encoded"], encoded).shape[1:]
    full = _joined(names["activity"], whole).shape[1:] if whole else shape
    for split, block in encoded.items():
        if split not in whole:
            whole[split] = np.full((len(block), *full), np.nan, dtype=np.float32)
            if all(a <= b for a, b in zip(shape, full, strict=True)):
                whole[split][:, : shape[0], : shape[1]] = block
        lead = whole[split][:, : shape[0], : shape[1]] if len(full) == 2 else whole[split]
        pair = " and ".join(
            repr(names[f].replace("{split}", split)) for f in ("encoded", "activity")
        )
        if lead.shape != block.shape:
            raise InputError(
                f"{pair} have shapes {block.shape} and {whole[split].shape}; the second must hold "
                "the first plus held-out neurons and forecast bins at the end"
            )
        differ = (lead != block) & ~(np.isnan(lead) & np.isnan(block))
        if differ.any():
            index = [int(i[0]) for i in np.nonzero(differ)]
            raise InputError(
                f"{pair} differ at {index}; the second must begin with the values of the first"
            )
    values: dict[str, Any] = {
        "activity": _joined(names["activity"], {split: whole[split] for split in parts})
    }
    if shape[1] < full[1]:
        values["heldin"] = np.arange(shape[1])
    if shape[0] < full[0]:
        values["num_encoded_bins"] = shape[0]
    return values


def _joined(template: str, parts: dict[str, np.ndarray]) -> np.ndarray:
    first, *rest = parts
    for split in rest:
        if parts[split].shape[1:] != parts[first].shape[1:]:
            one, other = (template.replace("{split}", s) for s in (first, split))
            raise InputError(
                f"{one!r} and {other!r} have shapes {parts[first].shape} and "
                f"{parts[split].shape}; all axes but the first must agree"
            )
    return np.concatenate(list(parts.values()))
