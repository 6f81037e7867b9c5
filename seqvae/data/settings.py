"""What ``NeuralData`` is told, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from seqvae.data.masking import CoordinatedDropout
from seqvae.data.validation import check_number, check_whole
from seqvae.errors import InputError

Alignment: TypeAlias = Literal["conditions", "trials"]


def check_settings(
    *,
    sizes: Mapping[str, Any],
    seeds: Mapping[str, Any],
    shares: Mapping[str, Any],
    speckled_fraction: Any,
    window_bins: Any,
    forecast_bins: Any,
    coordinated_dropout: Any,
    alignment: Any,
) -> None:
    """Refuse settings of another type, or outside their range.

    Args:
        sizes: whole numbers above 0, by name.
        seeds: whole numbers from 0 on.
        shares: numbers; their range is checked where trials are split.
        speckled_fraction: of the held-in entries.
        window_bins: None: chosen by the recording.
        forecast_bins: None: as the file says.
        coordinated_dropout: None: none.
        alignment: a word.

    Raises:
        InputError: naming the setting.
    """
    for name, size in sizes.items():
        check_whole(name, size, least=1)
    if window_bins is not None:
        check_whole("window_bins", window_bins, least=1)
    for name, number in seeds.items():
        check_whole(name, number, least=0)
    if forecast_bins is not None:
        check_whole("forecast_bins", forecast_bins)
    for name, share in (*shares.items(), ("speckled_fraction", speckled_fraction)):
        check_number(name, share)
    if not 0 <= speckled_fraction < 1:
        raise InputError(f"speckled_fraction must be from 0 to below 1, got {speckled_fraction:g}")
    if not isinstance(coordinated_dropout, CoordinatedDropout | None):
        raise InputError(
            f"coordinated_dropout must be CoordinatedDropout(rate=...), got {coordinated_dropout!r}"
        )
    if alignment not in get_args(Alignment):
        raise InputError(f"alignment must be 'conditions' or 'trials', got {alignment!r}")
