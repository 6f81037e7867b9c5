"""Figures of a run: in Python by name and by method, on the command line as a file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import xarray as xr

from seqvae import EM, InputError, LinearDynamics, Run, evaluate, fit, infer, plot, plotting
from seqvae.console.main import main
from seqvae.data.sources import write_hdf5
from tiny import LORENZ


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on a file whose trials have conditions."""
    place = tmp_path_factory.mktemp("run")
    recording = replace(LORENZ.load(), condition=np.arange(24) % 3)
    write_hdf5(recording, place / "data.h5")
    model, learner = partial(LinearDynamics, latent_dim=2), EM(max_iterations=2, progress=False)
    fit(str(place / "data.h5"), model, learner, run_dir=str(place / "run"))
    return place


def test_a_fit_draws_means_by_condition(folder):
    drawn = {path.stem for path in (folder / "run" / "figures").iterdir()}
    assert drawn == {"learning_curves", "rasters_and_rates", "rate_traces", "latents", "psth"}


def test_a_run_draws_its_figures_of_any_trials(folder):
    run = Run(folder / "run")
    assert run.plot is run.plot
    assert run.plot.psth(neurons=[0]).get_suptitle().startswith("LinearDynamics, 8 validation")
    assert run.plot.of("train").latents().get_suptitle().startswith("LinearDynamics, 16 training")
    assert run.plot.learning_curves().get_suptitle() == "LinearDynamics"
    panels = run.plot.rate_traces(trials=[1], neurons=[0, 5]).axes
    assert [axes.get_title() for axes in panels] == [f"trial {run.plot.posterior.trial[1]:d}", ""]
    assert len(run.plot.rasters_and_rates(trials=[0]).axes) > 1


def test_the_score_in_a_title_is_that_of_evaluate(folder):
    run = Run(folder / "run")
    score = evaluate(run, split="val")["co_bps"]
    assert run.plot.posterior.attrs["score"] == f"co_bps {score:.3f}"


def test_the_posterior_carries_what_was_recorded(folder, tmp_path):
    run = Run(folder / "run")
    posterior = infer(run, split="val", out=str(tmp_path / "posterior.nc"))
    activity = run.data().recording.activity[run.data().trials("val")]
    np.testing.assert_array_equal(posterior.activity.values, activity)
    with xr.open_dataset(tmp_path / "posterior.nc") as again:
        assert len(plotting.psth(again).axes) == 8
    assert "activity" not in infer(run, variables=["rates"])


def test_the_command_writes_a_figure_in_the_format_of_its_name(folder, tmp_path, capsys):
    words = ["plot", "--run", str(folder / "run"), "--figure", "psth"]
    for ending, start in ((".pdf", b"%PDF"), (".svg", b"<?xml"), (".png", b"\x89PNG")):
        out = tmp_path / f"figure{ending}"
        assert main([*words, "--out", str(out)]) == 0
        assert out.read_bytes().startswith(start)
    assert main(words) == 0
    assert "figure: " in capsys.readouterr().out
    assert (folder / "run" / "figures" / "psth.pdf").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"figure": "inferred_inputs"}, "LinearDynamics has no inferred inputs; it has rasters"),
        ({"out": "figure.jpeg"}, "give a name that ends so"),
        ({"out": "nowhere/figure.pdf"}, "does not exist"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_and_nothing_is_written(
    folder, arguments, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        plot(str(folder / "run"), **arguments)
    assert not list(tmp_path.iterdir())
