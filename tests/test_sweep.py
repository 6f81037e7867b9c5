"""What is swept by a cross-validation: any whole number of a model, over sizes of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest

from seqvae import InputError, crossvalidate
from seqvae.console import main as cli
from seqvae.crossvalidation.ensembles import checked_ensembles
from seqvae.crossvalidation.sizes import checked_sizes
from seqvae.learning import SwitchingEM
from seqvae.models import PCA, FactorAnalysis, SequentialVAE, SwitchingLinearDynamics
from seqvae.pages.dimensions import dimensions
from seqvae.plotting import dimension_curve
from seqvae.verbs.crossvalidate import shown
from tiny import LORENZ, tiny_data

pytestmark = pytest.mark.filterwarnings("ignore:.*largest of the grid")

SOURCE = replace(LORENZ, num_trials=10, num_val=0, num_time_bins=6, num_neurons=4, num_heldout=0)
FACTORS = partial(FactorAnalysis, smoothing=0.0)
MODELS = {"slds": partial(SwitchingLinearDynamics, latent_dim=1), "fa": FACTORS}
LEARNERS = {
    "slds": SwitchingEM(max_iterations=1, linear_iterations=1, num_starts=1, progress=False)
}
GRID = {"trial_folds": 2, "neuron_folds": 2, "num_samples": 2, "progress": False}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """States of the one model, dimensions of the other."""
    return crossvalidate(
        tiny_data(SOURCE), MODELS, LEARNERS, dims={"slds": [1, 2], "fa": [1, 3]},
        sweep={"slds": "num_states"}, out_dir=str(tmp_path_factory.mktemp("cv") / "cv"), **GRID,
    )  # fmt: skip


def test_each_model_is_learned_at_its_own_values_of_what_is_swept(done):
    told = done.summary["models"]
    assert told["slds"]["dims"] == [0, 1, 2]
    assert told["fa"]["dims"] == [0, 1, 3]
    assert {name: entry["swept"] for name, entry in told.items()} == {
        "slds": "num_states", "fa": "dimension",
    }  # fmt: skip
    columns = done.scores.groupby("model")["swept"].unique()
    assert [*columns["slds"], *columns["fa"]] == ["num_states", "dimension"]
    assert (done.scores["status"] == "done").all()


def test_all_that_tells_of_sizes_says_what_was_swept(done):
    folds = {**done.summary["folds"], "rows": 5}  # two carry no set
    text = shown(replace(done, summary={**done.summary, "folds": folds}), {})
    assert "num_states or dimension" in text.splitlines()[1]
    assert "slds: not excluded as the best num_states at 95 %" in text
    assert "fa: not excluded as the best dimension at 95 %" in text
    assert json.loads((done.folder / "summary.json").read_text())["swept"] in text
    figure = dimension_curve(done.summary)
    assert {axes.get_xlabel() for axes in figure.axes} == {"num_states or dimension"}
    section = dimensions(done.summary, "")
    assert section.title == "Which num_states or dimension?"
    assert any("Values of num_states of slds" in sentence for sentence in section.words)
    assert "num_states or dimension" in done._repr_html_()


def test_the_models_own_dimension_by_its_name_has_the_same_cells(tmp_path):
    folder = str(tmp_path / "cv")
    own = {"models": {"pca": PCA}, "dims": [1, 2], "scheme": "gabriel"}
    plain = crossvalidate(tiny_data(SOURCE), out_dir=folder, **own, **GRID)
    names = {path.name for path in (plain.folder / "cells").iterdir()}
    named = crossvalidate(
        tiny_data(SOURCE),
        out_dir=folder,
        **{**own, "dims": {"pca": [2, 1]}},
        sweep="latent_dim",
        **GRID,
    )
    assert {path.name for path in (named.folder / "cells").iterdir()} == names
    pd.testing.assert_frame_equal(named.scores.drop(columns="swept"), plain.scores)
    assert named.summary == plain.summary


def test_command_line_sweeps_states(tmp_path, capsys):
    words = ["crossvalidate", "--data.source.class_path", "Lorenz", "--data.source.num_trials", "8",
             "--data.source.num_val", "0", "--data.source.num_time_bins", "8",
             "--data.source.num_neurons", "4", "--data.source.num_heldout", "0",
             "--models.slds", "SwitchingLinearDynamics", "--models.slds.latent_dim", "1",
             "--learners.slds.max_iterations", "1", "--learners.slds.linear_iterations", "1",
             "--learners.slds.num_starts", "1", "--trial_folds", "2", "--neuron_folds", "2",
             "--num_samples", "2", "--progress", "false"]  # fmt: skip
    words += ["--out_dir", str(tmp_path / "cv"), "--sweep", "num_states", "--dims.slds", "[1, 2]"]
    assert cli.main(words) == 0
    assert "num_states" in capsys.readouterr().out.splitlines()[1]
    assert cli.main([*words, "--print_config"]) == 0
    written = capsys.readouterr().out
    assert "sweep: num_states" in written
    (tmp_path / "cv.yaml").write_text(written)
    before = (tmp_path / "cv/scores.csv").read_bytes()
    assert cli.main(["crossvalidate", "--config", str(tmp_path / "cv.yaml")]) == 0
    assert (tmp_path / "cv/scores.csv").read_bytes() == before


def test_ensembles_of_models_of_unlike_grids_take_the_sizes_that_all_have():
    dims = {"one": [1, 2], "two": [2, 3], "three": [3]}
    rows = checked_ensembles({"both": ["one", "two"]}, dims, scheme="fold_in")
    assert rows == {"both": [{"one": 2, "two": 2}]}
    rows = checked_ensembles({"both": {"one": 1, "two": 3}}, dims, scheme="fold_in")
    assert rows == {"both": [{"one": 1, "two": 3}]}
    with pytest.raises(InputError, match=r"ensembles\.both: its members share no size"):
        checked_ensembles({"both": ["one", "three"]}, dims, scheme="fold_in")
    with pytest.raises(InputError, match=r"ensembles\.both\.one: 3 is not one of dims \[1, 2\]"):
        checked_ensembles({"both": {"one": 3, "two": 3}}, dims, scheme="fold_in")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sweep": "num_state"}, "sweep: 'num_state' is no whole number of SwitchingLinear.*did "
         "you mean 'num_states'"),
        ({"sweep": {"sld": "num_states"}}, "sweep.sld is no model; did you mean 'slds'"),
        ({"sweep": {"slds": "observation"}}, "sweep.slds: 'observation' is no whole number of"),
        ({"sweep": "num_states", "dims": [0]}, "dims must hold a size above 0"),
        ({"sweep": "num_states", "dims": {"slds": [-1]}}, "dims.slds must be from 0 to"),
        ({"dims": {"slds": [True]}}, "dims.slds must be whole numbers, got True"),
        ({"dims": {"sld": [1]}}, "dims.sld is no model; did you mean 'slds'"),
        ({"dims": {}}, "dims.slds is missing; name the sizes of every model"),
    ],
)  # fmt: skip
def test_a_wrong_name_or_value_is_refused(settings, sentence, tmp_path):
    given = {"dims": [1], "out_dir": str(tmp_path / "cv"), **GRID, **settings}
    with pytest.raises(InputError, match=sentence):
        crossvalidate(tiny_data(SOURCE), {"slds": SwitchingLinearDynamics}, **given)
    assert not (tmp_path / "cv").exists()


def test_sizes_are_those_of_the_class_where_nothing_else_is_swept():
    models = {"svae": SequentialVAE, "pca": PCA}
    sizes = checked_sizes([4, 2], None, models, scheme="fold_in")
    assert sizes["svae"] == ("factor_dim", [2, 4], True)
    assert sizes["pca"] == ("latent_dim", [2, 4], True)
    other = checked_sizes([4], {"svae": "generator_dim"}, models, scheme="fold_in")
    assert other["svae"] == ("generator_dim", [4], False)
    with pytest.raises(InputError, match="warm_starts: a model of fewer inferred_input_dim is no"):
        crossvalidate(
            tiny_data(SOURCE), {"svae": SequentialVAE}, dims=[1], sweep="inferred_input_dim",
            warm_starts=True, **GRID,
        )  # fmt: skip
