"""Files as labs have them: each entry is taken for what it is, or one right question is asked."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from layouts import LAYOUTS, Layout
from seqvae.data import Recording
from seqvae.data.sources import as_source
from seqvae.data.sources.base import RecordingSource
from seqvae.data.survey import Outlook, outlook
from seqvae.errors import InputError


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_file_is_read_as_it_is_meant_or_one_question_is_asked(
    layout: Layout, tmp_path: Path
) -> None:
    source = as_source(layout.write(tmp_path), layout.bin_width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each guess is told; see the next test
        view = outlook(source)
        if layout.asks is not None:
            with pytest.raises(InputError, match=layout.asks):
                load(source, view)
            return
        recording = load(source, view)
    np.testing.assert_array_equal(recording.read(), layout.activity)
    if view is not None:
        said = set(layout.parts) - {"bin_width"}
        assert {name for name in view.plan.keys if name != "bin_width"} == said
        assert all(view.plan.keys[name] == layout.parts[name] for name in said)
        assert recording.bin_width is not None


def load(source: RecordingSource, view: Outlook | None) -> Recording:
    """Read a file as its outlook says."""
    if view is not None and view.plan.question:
        raise InputError(view.plan.question)
    return (source if view is None or view.source is None else view.source).load()


def test_what_is_guessed_is_told(tmp_path: Path) -> None:
    source = as_source(LAYOUTS["MATLAB 5, cube, neurons first"].write(tmp_path))
    with pytest.warns(UserWarning, match="guessed, as not given: activity 'spikes'"):
        source.load()
