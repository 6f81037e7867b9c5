"""Pictures in the files in which picture sets are kept."""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.recording import Recording
from seqvae.data.sources.archives import check_claim, open_npz
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.hdf5_file import open_hdf5
from seqvae.data.sources.settled import existing_file
from seqvae.errors import InputError, nearest

_SPLITS = {"train": ("train",), "val": ("valid", "val"), "test": ("test", "t10k")}
_IMAGES = ("{split}_images", "x_{split}", "{split}_recon_data", "{split}_encod_data")
_LABELS = ("{split}_labels", "{split}_label", "y_{split}", "{split}_condition")
_IMAGES_ALONE = ("images", "x", "data", "activity")
_LABELS_ALONE = ("labels", "label", "y", "target", "condition")
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@dataclass(frozen=True)
class Images(RecordingSource):
    """Grey pictures as one-bin trials with a channel for each pixel; ``condition`` is the label.

    Read are IDX files (the format of MNIST, also gzipped; of a folder with ``train-images...`` and
    ``t10k-images...`` both, and labels from the files beside them), npz archives (``x_train``,
    ``y_train``, ..., or ``images`` and ``labels``) and HDF5 files (also in the split layout of
    ``HDF5``). Pictures are (image, height, width) or flat; pixels go from 0 to 255, or from 0 to 1
    where none is above 1, and are scaled to [0, 1]. Where a file knows training and test pictures
    only, the last sixth of the former validates.

    Attributes:
        path: the file, or a folder of IDX files.
        threshold: grey level, in [0, 1], from which a pixel is 1, else 0, so that 0.5 is 128 of
            255; None keeps grey levels.
        image_shape: (height, width) of flat pictures, where the file does not say it; None then
            takes them for square.
        keys: entries with other names: ``images`` and ``labels``, where ``{split}`` stands for
            train, valid and test. Of an IDX file, the file of the labels.
    """

    path: str | Path
    threshold: float | None = None
    image_shape: tuple[int, int] | None = None
    keys: dict[str, str] | None = None

    def load(self) -> Recording:
        """Read the pictures."""
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(f"threshold must be above 0 and at most 1, got {self.threshold:g}")
        for name in self.keys or {}:
            if name not in ("images", "labels"):
                raise InputError(f"keys names {name!r}; it may name 'images' and 'labels'")
        with _entries(Path(self.path), self.keys or {}) as entries:
            parts = _parts(entries, self.keys or {})
            shape = self.image_shape
            if shape is None and "image_shape" in entries:
                height, width = np.ravel(entries["image_shape"])
                shape = int(height), int(width)
        shapes = {name: _image_shape(part["images"], shape) for name, part in parts.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"the pictures of the splits have different sizes: {shapes}")
        (shape,) = set(shapes.values())
        pixels = np.concatenate(
            [part["images"].reshape(-1, 1, math.prod(shape)) for part in parts.values()]
        )
        with_labels = all("labels" in part for part in parts.values())
        return Recording(
            _grey(pixels, self.threshold),
            condition=np.concatenate([part["labels"] for part in parts.values()])
            if with_labels
            else None,
            split=_split(parts),
            image_shape=shape,
        )


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzipped or not: 0, 0, type, number of axes, their sizes, the values.

    Raises:
        InputError: if it is no IDX file or is cut short.
    """
    file = existing_file(path)
    with file.open("rb") as opened:
        is_zipped = opened.read(2) == b"\x1f\x8b"
    with gzip.open(file) if is_zipped else file.open("rb") as opened:
        try:
            magic = opened.read(4)
            is_idx = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _IDX_TYPES
            is_idx = is_idx and 1 <= magic[3] <= 4
            header = opened.read(4 * magic[3]) if is_idx else b""
            if not is_idx:
                raise InputError(
                    f"source.path: {str(file)!r} is no IDX file; give an IDX, .npz or .h5 file"
                )
            dtype, shape = np.dtype(_IDX_TYPES[magic[2]]), _sizes(header)
            size = math.prod(shape) * dtype.itemsize
            check_claim(file, "the array", size)
            content = opened.read(size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"source.path: {str(file)!r} is truncated or damaged; copy it again"
            ) from error
    if len(header) < 4 * magic[3] or len(content) != size:
        raise InputError(
            f"source.path: {str(file)!r} does not hold what it says it does, an array of shape "
            f"{shape}; copy it again"
        )
    return np.frombuffer(content, dtype).reshape(shape)


def _sizes(header: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(header[: len(header) // 4 * 4], ">u4").astype(int).tolist())


@contextmanager
def _entries(path: Path, keys: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """Yield the arrays of a file by name, read when asked for."""
    if os.path.isdir(path) or not _is_archive(path):
        yield _idx_entries(path, keys)
        return
    open_archive = open_npz if zipfile.is_zipfile(path) else open_hdf5
    with open_archive(path) as archive:
        yield archive


def _is_archive(path: Path) -> bool:
    with existing_file(path).open("rb") as file:
        return file.read(8)[:4] in (b"PK\x03\x04", b"\x89HDF")


def _idx_entries(path: Path, keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read one IDX file and its labels, or all pictures of a folder with theirs."""
    if not os.path.isdir(path):
        entries = {"images": read_idx(path)}
        name = keys.get("labels") or _labels_beside(path.name)
        if Path(name).name != name:
            raise InputError(
                f"keys.labels must be the name of a file beside the pictures: {name!r}"
            )
        labels = path.with_name(name)
        if labels != path and ("labels" in keys or labels.exists()):
            entries["labels"] = read_idx(labels)
        return entries
    entries = {}
    for words in _SPLITS.values():
        for word in words:
            for file in sorted(path.glob(f"{word}-images*")):
                entries[f"{word}_images"] = read_idx(file)
                labels = file.with_name(_labels_beside(file.name))
                if labels.exists():
                    entries[f"{word}_labels"] = read_idx(labels)
    if not entries:
        raise InputError(
            f"source.path: the folder {str(path)!r} has no file such as train-images-idx3-ubyte; "
            "check the path"
        )
    return entries


def _labels_beside(name: str) -> str:
    return name.replace("images", "labels").replace("idx3", "idx1")


def _parts(entries: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    """Return pictures and labels of each split, or of "" where the file knows none."""
    names = {"images": (_IMAGES, _IMAGES_ALONE), "labels": (_LABELS, _LABELS_ALONE)}
    if "{split}" in keys.get("images", "{split}"):
        places = [(split, word) for split, words in _SPLITS.items() for word in words]
    else:
        places = []
    parts: dict[str, dict[str, np.ndarray]] = {}
    for split, word in [*places, ("", "")]:
        if parts and not split:
            break
        arrays = {}
        for field, (of_split, alone) in names.items():
            templates = (keys[field],) if field in keys else of_split if split else alone
            candidates = (template.replace("{split}", word) for template in templates)
            name = next((name for name in candidates if name in entries), None)
            if name is not None:
                arrays[field] = np.asarray(entries[name])
        if "images" in arrays:
            parts[split] = arrays
    if not parts:
        wanted = keys.get("images", "x_train")
        raise InputError(
            f"the file has no entry {wanted!r}{nearest(wanted, entries)}; say which entry holds "
            "the pictures: keys {images: NAME}"
        )
    if "labels" in keys and not all("labels" in part for part in parts.values()):
        wanted = keys["labels"]
        raise InputError(f"the file has no entry {wanted!r}{nearest(wanted, entries)}")
    for part in parts.values():
        if "labels" in part and part["labels"].shape != part["images"].shape[:1]:
            raise InputError(
                f"there are {part['labels'].shape} labels for pictures of shape "
                f"{part['images'].shape}; give one label a picture"
            )
    return parts


def _image_shape(images: np.ndarray, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of pictures in an array."""
    sizes = [size for size in images.shape[1:] if size > 1]
    if images.dtype.kind not in "biuf" or images.ndim < 2 or len(sizes) > 2:
        raise InputError(
            f"pictures must be numbers (image, height, width) or (image, pixel), got "
            f"{images.dtype} of shape {images.shape}; make colours grey first"
        )
    pixels = math.prod(sizes)
    side = math.isqrt(pixels)
    if shape is None and len(sizes) == 2:
        return sizes[0], sizes[1]
    if shape is None and side**2 == pixels:
        return side, side
    if shape is None or math.prod(shape) != pixels:
        raise InputError(
            f"image_shape must be (height, width) of {pixels} pixels, got {shape or 'nothing'}"
        )
    return shape[0], shape[1]


def _grey(pixels: np.ndarray, threshold: float | None) -> np.ndarray:
    """Scale to [0, 1], or make pixels 0 and 1; what is missing stays so."""
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    if not (low >= 0 and high <= 255):
        raise InputError(f"pixels must be from 0 to 255, got {low:g} to {high:g}")
    white = 255 if high > 1 else 1
    if threshold is None:
        return pixels.astype(np.float32) / np.float32(white)
    bright = (pixels >= threshold * white).astype(np.float32)
    return np.where(np.isnan(pixels), np.float32(np.nan), bright)


def _split(parts: dict[str, dict[str, np.ndarray]]) -> np.ndarray | None:
    """Return the split of each picture; the last sixth of training validates if nothing does."""
    if "" in parts:
        return None
    split = np.repeat(list(parts), [len(part["images"]) for part in parts.values()])
    if "train" in parts and "val" not in parts:
        training = np.flatnonzero(split == "train")
        split[training[len(training) - len(training) // 6 :]] = "val"
    return split
