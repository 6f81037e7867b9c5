"""What a notebook shows of a run, a recording and a cross-validation: short, and escaped."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

from seqvae import EM, LinearDynamics, fit
from seqvae.crossvalidation.result import CrossValidation
from seqvae.storage.html import facts_html
from tiny import LORENZ

HOSTILE = "<script>alert(1)</script>"


class Cells(HTMLParser):
    """The texts of a table, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def cells_of(value) -> list[str]:
    text = value._repr_html_()
    found = Cells(text)
    assert found.tags <= {"table", "caption", "b", "tr", "th", "td"}
    assert len(text) < 3000
    return found.texts


def test_a_recording_tells_sizes_and_labels():
    names = np.array([HOSTILE, "right"])[np.arange(24) % 2]
    recording = replace(LORENZ.load(), condition=names, event_times=0.03, event_name="cue")
    cells = cells_of(recording)
    assert cells[:7] == ["Recording", "trials", "24 (16 train, 8 val)", "bins a trial",
                         "10 of 0.01 s", "neurons", "6"]  # fmt: skip
    assert f"2: {HOSTILE}, right" in cells
    assert cells[cells.index("neurons held out") + 1] == "2"
    assert repr(recording).startswith("Recording(24 trials, 10 bins of 0.01 s, 6 neurons, with beh")
    many = replace(recording, condition=np.arange(24))
    assert "24" in cells_of(many)


def test_a_run_tells_model_data_and_scores(tmp_path):
    model, learner = partial(LinearDynamics, latent_dim=2), EM(max_iterations=1, progress=False)
    run = fit(LORENZ.load(), model, learner, in_memory=True)
    cells = cells_of(run)
    assert cells[:3] == ["Run in memory", "model", "LinearDynamics"]
    assert "16 train, 8 val" in cells
    assert "6, 2 held out" in cells
    last = run.history[-1]["val/co_bps"]
    assert cells[cells.index("last val/co_bps") + 1] == f"{last:.4f}"
    assert run.posterior is run.plot.posterior
    assert run.posterior.sizes["trial"] == 8
    saved = run.save(tmp_path / HOSTILE.replace("/", "-"))
    assert "<script>" in cells_of(saved)[0]
    assert "<script>" not in saved._repr_html_()


def test_a_cross_validation_tells_what_was_chosen():
    told = {"dims": [0, 2], "mean": [0.0, 0.25], "chosen_dim": 2}
    summary = {"models": {HOSTILE: told}, "best_model": HOSTILE, "unit": "bits_per_spike"}
    result = CrossValidation(Path("cv"), pd.DataFrame(), summary)
    score = "held-out score, bits per spike"
    assert cells_of(result) == ["CrossValidation cv", "model", "dimension", score,
                                HOSTILE, "2", "0.2500", "best"]  # fmt: skip
    part = CrossValidation(Path("cv"), pd.DataFrame(), None, num_missing=7)
    assert cells_of(part) == ["CrossValidation cv", "cells still to be done", "7"]


def test_long_texts_are_cut():
    assert len(facts_html("x", {"a": "b" * 10_000})) < 600
