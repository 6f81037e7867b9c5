"""A fit that writes nothing."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest

from seqvae import EM, PCA, VAE, InputError, LinearDynamics, Run, audit, evaluate, fit, infer
from seqvae.console.main import main
from tiny import LORENZ, first_inequality, in_memory, tiny_data, tiny_learner, weights

SMALL = {
    "VAE": partial(VAE, latent_dim=2, factor_dim=4, validation_samples=2),
    "LinearDynamics": partial(LinearDynamics, latent_dim=2),
    "PCA": partial(PCA, latent_dim=2),
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    monkeypatch.chdir(tmp_path)


def learner(name):
    if name == "VAE":
        return tiny_learner(3)
    return EM(max_iterations=3, progress=False) if name == "LinearDynamics" else None


@pytest.mark.parametrize("name", SMALL)
def test_a_fit_in_memory_equals_one_in_a_folder_and_writes_nothing(name, tmp_path):
    run = fit(tiny_data(), SMALL[name], learner(name), seed=3, in_memory=True)
    assert run.folder is None
    assert list(tmp_path.iterdir()) == []
    other = fit(tiny_data(), SMALL[name], learner(name), seed=3, run_dir="a")
    ours, theirs = (dict(each.model().state_dict()) for each in (run, other))
    assert first_inequality(ours, theirs) is None
    assert run.history == other.history
    assert (run.seed, run.spec, run.hash) == (other.seed, other.spec, other.hash)


def test_verbs_take_a_run_in_memory_as_any(tmp_path):
    given = (tiny_data(), SMALL["PCA"])
    run, other = fit(*given, in_memory=True), fit(*given, run_dir="a")
    assert first_inequality(evaluate(run, num_samples=2), evaluate(other, num_samples=2)) is None
    assert infer(run, num_samples=2).equals(infer(other, num_samples=2))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_in_memory_is_saved_and_read_again(tmp_path):
    run = fit(in_memory(), SMALL["VAE"], tiny_learner(2), in_memory=True)
    saved = run.save("a")
    again = Run(saved.folder)
    assert again.hash == run.hash
    assert again.history == run.history
    assert infer(again, in_memory(), num_samples=2).equals(infer(run, num_samples=2))
    repeated = fit(from_run=saved, run_dir="b")
    assert first_inequality(
        *(weights(Path(name) / "weights.pt")["state_dict"] for name in ("a", "b"))
    ) is None  # fmt: skip
    with pytest.raises(InputError, match="folder 'b' is not empty; give a new one"):
        run.save(repeated.folder)


def test_a_run_in_memory_is_learned_on_but_its_successor_cannot_be_repeated():
    run = fit(tiny_data(), SMALL["VAE"], tiny_learner(1), in_memory=True)
    successor = fit(tiny_data(), SMALL["VAE"], tiny_learner(1), init_from=run, run_dir="a")
    assert successor.provenance["init_from"]["run"] == "Run in memory, of VAE"
    with pytest.raises(InputError, match="began from 'Run in memory, of VAE', which cannot be"):
        fit(from_run=successor, run_dir="b")


def test_what_needs_a_folder_is_refused(tmp_path):
    data, model = tiny_data(), SMALL["PCA"]
    for name, value in (("run_dir", "a"), ("resume", True), ("overwrite", True)):
        with pytest.raises(InputError, match=f"in_memory writes no folder; leave {name} out"):
            fit(data, model, in_memory=True, **{name: value})
    run = fit(data, model, in_memory=True)
    assert repr(run) == "Run in memory, of PCA"
    for ask in (lambda: run.files, lambda: fit(from_run=run), lambda: audit(run)):
        with pytest.raises(InputError, match=r"the run is in memory only; write it first"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_command_line_says_that_nothing_was_written(capsys):
    argv = ["fit", "--model", "PCA", "--model.latent_dim", "2", "--data.source", "Lorenz"]
    argv += ["--data.source.num_trials", "20", "--data.source.num_val", "5", "--in_memory"]
    assert main(argv) == 0
    assert "kept in memory: nothing was written" in capsys.readouterr().out


def test_a_run_saved_from_memory_is_not_begun_anew_by_resume():
    saved = fit(tiny_data(), SMALL["VAE"], tiny_learner(3), in_memory=True).save("a")
    before = saved.files.weights.read_bytes()
    with pytest.raises(InputError, match=r"was saved from memory.*init_from to begin with"):
        fit(tiny_data(), SMALL["VAE"], tiny_learner(1), run_dir="a", resume=True)
    assert saved.files.weights.read_bytes() == before


def test_overwriting_the_run_that_learning_begins_with_is_refused():
    run = fit(tiny_data(), SMALL["VAE"], tiny_learner(1), run_dir="a")
    with pytest.raises(InputError, match="init_from: overwrite would remove the run"):
        fit(tiny_data(), SMALL["VAE"], tiny_learner(1), run_dir="a", overwrite=True, init_from="a")
    assert run.files.weights.exists()


def test_evaluate_cuts_a_long_trial_as_infer_does():
    run = fit(tiny_data(), SMALL["PCA"], in_memory=True)
    long = LORENZ.load().activity[:4].reshape(1, 40, 6)
    scores = evaluate(run, long, bin_width=LORENZ.bin_width, num_samples=2)
    assert scores["num_trials"] == infer(run, long, bin_width=LORENZ.bin_width).sizes["trial"] == 4


def test_settings_without_data_are_told_of_the_factory():
    with pytest.raises(InputError, match=r"factory partial\(LinearDynamics, latent_dim=2\)"):
        LinearDynamics(latent_dim=2)
    model = LinearDynamics(tiny_data().spec, latent_dim=2)
    assert copy.deepcopy(model).latent_dim == 2
