from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

from seqvae import VAE, InputError, NeuralData, Run, check, evaluate, fit, infer
from seqvae.data.sources import Lorenz, write_hdf5
from seqvae.data.sources.hdf5 import HDF5
from seqvae.verbs.evaluate import score_table
from seqvae.verbs.opening import Opened, tell_replaced
from tiny import LORENZ, SVAE, in_memory, silent_heldout, tiny_data, tiny_learner

MODELS = {"svae": SVAE, "vae": partial(VAE, latent_dim=2, factor_dim=4)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        folder = tmp_path_factory.mktemp("runs")
        return {
            name: fit(tiny_data(), model, tiny_learner(2), run_dir=str(folder / name))
            for name, model in MODELS.items()
        }


@pytest.fixture
def run(runs):
    return runs["svae"]


def only_heldin(recording):
    """A recording of the neurons that inference sees, as a later session may have them."""
    return replace(
        recording,
        activity=recording.activity[:, :, recording.heldin],
        rates=None,
        neuron_ids=None,
        heldin=None,
    )


# --- infer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_weights_from_disk_infer_what_the_model_in_memory_infers(runs, name):
    live = infer(runs[name], num_samples=5)
    loaded = infer(str(runs[name].folder), num_samples=5)
    assert loaded.identical(live)


@pytest.mark.parametrize("name", MODELS)
def test_weights_from_disk_score_what_the_model_in_memory_scores(runs, name):
    live = evaluate(runs[name], num_samples=5)
    assert evaluate(Run(runs[name].folder), num_samples=5) == live


def test_posterior_has_the_variables_and_dimensions_that_the_docs_name(run):
    found = infer(run, num_samples=5)
    assert dict(found.sizes) == {
        "trial": 24, "time": 10, "neuron": 6, "factor": 3,
        "initial_condition_dim": 4, "inferred_inputs_dim": 1,
    }  # fmt: skip
    expected = {f"{name}{end}" for name in ("rates", "factors") for end in ("", "_sd")}
    latents = ("initial_condition", "inferred_inputs")
    expected |= {f"{name}_{end}" for name in latents for end in ("mean", "sd")}
    assert set(found) == expected | {"elbo", "activity"}
    assert found["time"].values == pytest.approx(np.arange(10) * 0.01)
    assert found.attrs["model"] == "SequentialVAE"
    assert found.attrs["run"] == run.hash
    assert {"bin_width", "seqvae_version", "torch_version", "num_samples"} <= set(found.attrs)
    assert all(np.isfinite(variable).all() for variable in found.values())


def test_inference_repeats_itself_and_leaves_the_callers_randomness_alone(run):
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = infer(run, num_samples=2)
    assert torch.equal(torch.rand(2), expected)
    assert infer(run, num_samples=2).identical(first)


def test_split_picks_the_trials(run):
    whole, part = infer(run, num_samples=2), infer(run, split="val", num_samples=2)
    assert part["trial"].values.tolist() == list(range(16, 24))
    assert set(whole["split"].values) == {"train", "val"}
    with pytest.raises(InputError, match="split 'vla' is unknown; did you mean 'val'"):
        infer(run, split="vla")
    with pytest.raises(InputError, match="split 'test' has no trials; the data hold: train, val"):
        infer(run, split="test")


def test_file_holds_what_is_returned(run, tmp_path):
    out = tmp_path / "posterior.nc"
    infer(run, num_samples=2, out=str(out)).close()
    with xr.open_dataset(out) as stored:
        xr.testing.assert_equal(stored.load(), infer(run, num_samples=2))
    assert list(tmp_path.iterdir()) == [out]


def test_failure_keeps_the_old_file(run, tmp_path, monkeypatch):
    out = tmp_path / "posterior.nc"
    out.write_text("old")
    calls = []

    def fail(*args, **kwargs):
        calls.append(args)
        raise RuntimeError("a defect")

    monkeypatch.setattr("seqvae.analysis.posterior.posterior_summary", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        infer(run, num_samples=2, out=str(out))
    assert calls
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("verb", [infer, evaluate])
def test_unusable_arguments_are_refused_before_any_work(run, tmp_path, verb):
    with pytest.raises(InputError, match="num_samples must be at least 1, got 0"):
        verb(run, num_samples=0)
    with pytest.raises(InputError, match=r"the folder '.*nowhere' does not exist"):
        verb(run, out=str(tmp_path / "nowhere" / "x"))
    with pytest.raises(InputError, match="is a folder"):
        verb(run, out=str(tmp_path))
    with pytest.raises(
        InputError, match=r"a\.mat' would be written as \.(nc or \.zarr|json); give a name"
    ):
        verb(run, out=str(tmp_path / "a.mat"))
    assert not list(tmp_path.iterdir())


def test_fewer_than_no_steps_of_refinement_are_refused(run):
    with pytest.raises(InputError, match="refine_steps must be at least 0, got -1"):
        evaluate(run, refine_steps=-1)


@pytest.mark.parametrize("name", MODELS)
def test_recording_of_heldin_neurons_gives_the_same_posterior(runs, name):
    recording = LORENZ.load()
    whole = infer(runs[name], in_memory(recording), num_samples=3)
    with pytest.warns(UserWarning, match="taken for those that are held in, in their order"):
        part = infer(runs[name], in_memory(only_heldin(recording)), num_samples=3)
    assert part.sizes == whole.sizes
    for variable in set(whole) - {"elbo", "activity"}:  # the recorded one is what it is
        np.testing.assert_array_equal(part[variable], whole[variable])
    assert (part["elbo"] > whole["elbo"]).all()  # the held-out counts are not there to be scored


def test_what_an_unfinished_fit_scores_is_said_to_be_of_one(run, tmp_path):
    assert run.provenance["finished"]
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    note = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(note | {"finished": False}))
    metrics = evaluate(str(folder), num_samples=2)
    assert "unfinished: learning has not ended" in score_table(metrics)
    assert "advice" not in metrics
    assert "unfinished" not in evaluate(run, num_samples=2)


def test_scores_of_trials_that_were_learned_from_are_said_to_be_so(run):
    counts = NeuralData(LORENZ.load().activity, bin_width=0.01, val_fraction=0.0)
    counts.setup()
    opened = Opened(run, counts, run.model(), is_new=False)
    with pytest.warns(UserWarning, match="of the trials that the run was learned from"):
        assert opened.scored_split == "all"


def test_scores_without_anything_held_out_say_what_they_favour(run):
    metrics = evaluate(run, num_samples=2)
    assert "nothing was held out" not in score_table(metrics)
    assert "nothing was held out from inference" in score_table({**metrics, "gain": {}})


def test_a_file_that_is_replaced_is_told(tmp_path):
    tell_replaced(str(tmp_path / "a.html"))
    (tmp_path / "a.html").write_text("mine")
    with pytest.warns(UserWarning, match=r"a\.html' is there already, and is replaced"):
        tell_replaced(str(tmp_path / "a.html"))


def test_other_recordings_that_do_not_fit_are_refused(run):
    for recording, words in (
        (Lorenz(num_trials=9, num_val=3, num_neurons=5, num_heldout=0), "activity has 5 neurons"),
        (replace(LORENZ, bin_width=0.02), "bin_width is 0.02 s, but the model was trained with"),
    ):
        with pytest.raises(InputError, match=words):
            infer(run, tiny_data(recording))
    real = replace(LORENZ.load(), activity=LORENZ.load().activity + 0.5)
    with pytest.raises(InputError, match="counts"):
        infer(run, in_memory(real))


def test_trials_of_another_length_are_inferred(run):
    found = infer(run, tiny_data(replace(LORENZ, num_time_bins=14)), num_samples=2)
    assert found.sizes["time"] == 14
    assert np.isfinite(found["rates"]).all()


# --- evaluate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "split", "num_trials"),
    [
        (replace(LORENZ, num_test=3), "test", 3),
        (LORENZ, "val", 8),
        (replace(LORENZ, num_val=0), "all", 24),
    ],
)
def test_scored_split_is_test_else_val_else_all(run, source, split, num_trials):
    found = evaluate(run, tiny_data(source), num_samples=2)
    assert (found["split"], found["num_trials"]) == (split, num_trials)


def test_given_split_is_scored(run):
    found = evaluate(run, split="train", num_samples=2)
    assert (found["split"], found["num_trials"]) == ("train", 16)


def test_baselines_stand_beside_the_model(run):
    found = evaluate(run, num_samples=3)
    names = {"log_likelihood", "bits_per_spike", "co_bps", "rates_r2"}
    assert names | {"elbo", "iwae", "kl/initial_condition", "behavior_r2"} <= set(found)
    assert {"mean_rate", "smoothing_glm"} <= set(found["baselines"])
    for row in found["baselines"].values():
        assert names <= set(row)
    assert found["baselines"]["mean_rate"]["co_bps"] == pytest.approx(0, abs=1e-6)
    assert found["iwae"] >= found["elbo"]


def test_scores_of_truth_and_behavior_are_left_out_where_there_is_none(run):
    recording = replace(LORENZ.load(), rates=None, behavior=None)
    found = evaluate(run, in_memory(recording), num_samples=2)
    assert not {"rates_r2", "behavior_r2"} & set(found)


def test_truth_that_the_scored_trials_lack_is_no_baseline(run):
    recording = LORENZ.load()
    rates = recording.rates.copy()
    rates[recording.split == "val"] = np.nan
    found = evaluate(run, in_memory(replace(recording, rates=rates)), num_samples=2)
    assert "true_rates" not in found["baselines"]
    assert not any("rates_r2" in row for row in (found, *found["baselines"].values()))


def test_metrics_file_holds_what_is_returned(run, tmp_path):
    found = evaluate(run, num_samples=2, out=str(tmp_path / "metrics.json"))
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_score_that_is_not_known_is_null_in_the_file(run, tmp_path):
    recording = silent_heldout(LORENZ.load())
    found = evaluate(run, in_memory(recording), num_samples=2, out=str(tmp_path / "m.json"))
    assert np.isnan(found["co_bps"])
    assert json.loads((tmp_path / "m.json").read_text())["co_bps"] is None


def test_evaluation_agrees_with_the_validation_that_chose_the_weights(tmp_path):
    model = partial(SVAE, validation_samples=500)
    run = fit(tiny_data(), model, tiny_learner(1), run_dir=str(tmp_path / "r"))
    kept = torch.load(run.files.weights, weights_only=True)
    found = evaluate(run, split="val", num_samples=500)
    assert found["heldin_elbo"] == pytest.approx(kept["score"], rel=0.01)


# --- fit and check -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda spec: SVAE(spec), "use a class or functools.partial of a class, got .*lambda"),
        (SVAE(tiny_data().spec), "got an instance of SequentialVAE"),
        (partial(lambda spec: SVAE(spec)), "use a class or functools.partial of a class"),
    ],
)
def test_model_that_is_no_factory_is_refused(tmp_path, model, words):
    with pytest.raises(InputError, match=words):
        fit(tiny_data(), model, run_dir=str(tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_bad_data_and_sizes_are_refused_before_anything_is_written(tmp_path):
    fractional = replace(LORENZ.load(), activity=LORENZ.load().activity + 0.5)
    for data, model in (
        (in_memory(fractional), SVAE),
        (tiny_data(), partial(SVAE, factor_dim=0)),
        (tiny_data(), partial(VAE, latent_dim=0)),
    ):
        with pytest.raises(InputError):
            fit(data, model, tiny_learner(1), run_dir=str(tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []


def test_run_without_a_name_goes_to_the_folder_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(tiny_data(), VAE, tiny_learner(1))
    assert run.folder.parent.name == "runs"
    assert run.folder.name.startswith("vae-")


def test_figures_come_to_the_run_folder(tmp_path):
    run = fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(tmp_path / "r"))
    drawn = {path.name for path in run.files.figures.iterdir()}
    assert {"learning_curves.png", "rasters_and_rates.png", "latents.png"} <= drawn
    assert "inferred_inputs.png" in drawn
    for path in run.files.figures.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_check_tells_what_is_in_the_data():
    told = check(tiny_data())
    assert told["trials"] == {"train": 16, "val": 8, "test": 0}
    assert told["neurons held in"] == 4
    assert told["neurons held out"] == 2
    assert told["values"] == "counts"
    assert told["checksum"] == LORENZ.load().checksum


def test_fit_infer_evaluate_from_a_file(tmp_path):
    path = tmp_path / "session.h5"
    write_hdf5(LORENZ.load(), path)
    run = fit(tiny_data(HDF5(path)), SVAE, tiny_learner(1), run_dir=str(tmp_path / "r"))
    found = infer(str(run.folder), num_samples=2)
    xr.testing.assert_equal(found, infer(run, tiny_data(), num_samples=2))
    path.unlink()
    with pytest.raises(InputError, match=r"session\.h5"):
        infer(str(run.folder))
