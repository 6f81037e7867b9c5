from __future__ import annotations

import io
import sys

import pytest

from seqvae.compute.progress import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_file"), [(io.StringIO, True), (Terminal, False)])
def test_a_bar_in_a_file_has_few_lines(stream, is_file, monkeypatch):
    told = stream()
    monkeypatch.setattr(sys, "stderr", told)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with bar(400, work="fit", unit="epoch") as shown:
        seconds = iter(range(1, 10_000))
        shown.start_t = shown.last_print_t = 0
        shown._time = lambda: next(seconds) / 5
        for _ in range(400):
            shown.update()
    states = told.getvalue().split("\r")
    assert "400/400" in states[-1]
    assert (len(states) < 10) is is_file


def test_a_bar_that_is_not_wanted_is_none(capsys):
    with bar(2, work="fit", unit="epoch", show=False) as shown:
        shown.update(2)
    assert capsys.readouterr().err == ""
