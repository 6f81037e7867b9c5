"""Fine-tuning: a fit that begins with the weights of another run."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

from seqvae import EM, PCA, VAE, InputError, LinearDynamics, Run, fit
from seqvae.console.main import main
from seqvae.runs import Origin, begin
from tiny import LORENZ, SVAE, first_inequality, tiny_data, tiny_learner, weights

SMALL = partial(VAE, latent_dim=2, factor_dim=4, validation_samples=1)
STILL = partial(SMALL, optimizer=partial(SGD, lr=0.0), schedule=None)
MEANS = ("null_counts", "observed_mean", "observed_scale")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        folder = tmp_path_factory.mktemp("runs") / "a"
        return fit(tiny_data(), SMALL, tiny_learner(2), run_dir=str(folder))


def other_data(**settings):
    return tiny_data(replace(LORENZ, seed=7, **settings), heldout=[0, 5])  # as those of seed 0


def kept(run):
    """The weights of a run."""
    return weights(Path(run.folder) / "weights.pt")["state_dict"]


def test_equal_model_begins_with_equal_weights(former):
    data = tiny_data()
    data.setup()
    model = begin(SMALL, data, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # everything has its place
        Origin.read(former).hand_over(model)
    assert model.has_begun
    assert first_inequality(dict(model.state_dict()), dict(former.model().state_dict())) is None


def test_weights_are_the_former_ones_and_training_means_those_of_the_new_data(former, tmp_path):
    data = other_data()
    run = fit(data, STILL, tiny_learner(1), init_from=former, run_dir=str(tmp_path / "b"))
    new, old = kept(run), kept(former)
    for name in old:
        assert torch.equal(new[name], old[name]) == (name not in MEANS), name
    assert torch.equal(new["null_counts"], data.train_mean.to(new["null_counts"]))


def test_weights_that_read_other_neurons_are_refused(former, tmp_path):
    data = tiny_data(replace(LORENZ, seed=7), heldout=[0, 4])
    with pytest.raises(InputError, match=r"held-in neuron 3 is 5 in the data and 4 in the model"):
        fit(data, SMALL, tiny_learner(1), init_from=former, run_dir=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_every_weight_without_a_place_is_told(former, tmp_path):
    data = other_data(num_neurons=7)  # one more, held in
    with pytest.warns(UserWarning, match="init_from: not everything is taken over") as caught:
        run = fit(data, STILL, tiny_learner(1), init_from=former, run_dir=str(tmp_path / "b"))
    (told,) = [str(each.message) for each in caught if "init_from" in str(each.message)]
    new, old = kept(run), kept(former)
    for name in set(old) - set(MEANS):
        assert (f"{name} has shape {tuple(old[name].shape)} there" in told) == (
            new[name].shape != old[name].shape
        )
        if new[name].shape == old[name].shape:
            assert torch.equal(new[name], old[name])
    assert "observation.readout.weight" in told


def test_a_long_list_is_cut(former, tmp_path):
    data = tiny_data()
    data.setup()
    model = begin(SVAE, data)
    model.observation.readout.bias.data.fill_(1.0)
    with pytest.warns(UserWarning, match=r"is not there; .*; and \d+ more$"):
        Origin.read(former).hand_over(model)
    assert torch.equal(
        model.observation.readout.bias.cpu(), former.model().observation.readout.bias
    )


def test_nothing_to_take_over_is_refused_and_nothing_written(tmp_path):
    model, learner = partial(LinearDynamics, latent_dim=2), EM(max_iterations=1, progress=False)
    linear = fit(tiny_data(), model, learner, run_dir=str(tmp_path / "a"))
    words = "init_from: a LinearDynamics of these sizes has no weight of the name and shape of one"
    with pytest.raises(InputError, match=f"{words} of this VAE"):
        fit(other_data(num_neurons=9), SMALL, tiny_learner(1), init_from=linear,
            run_dir=str(tmp_path / "b"))  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_what_cannot_begin_so_is_refused(former, tmp_path):
    given = {"init_from": former, "run_dir": str(tmp_path / "b")}
    with pytest.raises(InputError, match="init_from: ClosedForm begins from the data alone"):
        fit(tiny_data(), partial(PCA, latent_dim=2), **given)
    with pytest.raises(InputError, match="init_from: a run that is resumed has begun already"):
        fit(tiny_data(), SMALL, tiny_learner(1), resume=True, **given)
    with pytest.raises(InputError, match=r"^init_from: run .*nowhere' does not exist"):
        fit(tiny_data(), SMALL, init_from=str(tmp_path / "nowhere"))
    assert not (tmp_path / "b").exists()


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_weights_are_read_without_pickle(former, tmp_path):
    folder = shutil.copytree(former.folder, tmp_path / "a")
    (folder / "weights.pt").write_bytes(pickle.dumps(Code(tmp_path / "mark")))
    with pytest.raises(InputError, match=r"init_from: .*weights\.pt cannot be read"):
        fit(tiny_data(), SMALL, init_from=str(folder), run_dir=str(tmp_path / "b"))
    assert not (tmp_path / "mark").exists()


def test_expectation_maximisation_begins_with_the_former_parameters(tmp_path):
    model = partial(LinearDynamics, latent_dim=2)
    long, short = EM(max_iterations=12, progress=False), EM(max_iterations=3, progress=False)
    former = fit(tiny_data(), model, long, run_dir=str(tmp_path / "a"))
    anew = fit(tiny_data(), model, short, run_dir=str(tmp_path / "b"))
    longer = fit(tiny_data(), model, short, init_from=former, run_dir=str(tmp_path / "c"))
    for iteration in range(3):
        assert bounds(longer)[iteration] > bounds(anew)[iteration]


def bounds(run):
    with (run.folder / "history.csv").open() as file:
        return [float(row["bound"]) for row in csv.DictReader(file)]


# --- provenance ----------------------------------------------------------------------------------


def test_provenance_tells_the_former_run_and_a_repetition_begins_there(former, tmp_path):
    given = {"init_from": str(former.folder), "run_dir": str(tmp_path / "b")}
    run = fit(other_data(), SMALL, tiny_learner(1), **given)
    told = run.provenance["init_from"]
    assert told["run"] == str(former.folder)
    again = fit(from_run=run, run_dir=str(tmp_path / "c"))
    assert first_inequality(kept(run), kept(again)) is None
    assert again.provenance["init_from"] == told
    assert again.hash == run.hash
    anew = fit(other_data(), SMALL, tiny_learner(1), run_dir=str(tmp_path / "d"))
    assert anew.hash != run.hash
    assert anew.provenance["init_from"] is None


def test_repetition_whose_beginning_is_gone_or_changed_is_refused(former, tmp_path):
    folder = shutil.copytree(former.folder, tmp_path / "a")
    run = fit(tiny_data(), SMALL, tiny_learner(1), init_from=str(folder),
              run_dir=str(tmp_path / "b"))  # fmt: skip
    shutil.copy(run.files.weights, folder / "weights.pt")
    with pytest.raises(InputError, match=r"began from .* which has learned other weights since"):
        fit(from_run=run, run_dir=str(tmp_path / "c"))
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"began from .* which cannot be read: run .* not exist"):
        fit(from_run=run, run_dir=str(tmp_path / "c"))
    assert not (tmp_path / "c").exists()
    again = fit(from_run=run, init_from=former, run_dir=str(tmp_path / "c"))  # said anew
    assert first_inequality(kept(run), kept(again)) is None


def test_a_run_killed_before_its_first_checkpoint_begins_again_where_it_began(former, tmp_path):
    given = (tiny_data(), SMALL, tiny_learner(1))
    run = fit(*given, init_from=former, run_dir=str(tmp_path / "b"))
    whole = kept(run)
    for name in ("last.ckpt", "weights.pt"):
        (run.folder / name).unlink()
    again = fit(*given, resume=True, run_dir=str(tmp_path / "b"))
    assert first_inequality(kept(again), whole) is None


def test_damaged_note_is_refused(former, tmp_path):
    folder = shutil.copytree(former.folder, tmp_path / "a")
    content = json.loads((folder / "provenance.json").read_text())
    for note in ("elsewhere", {"run": 3, "hash": "x"}, {"run": "runs/a"}):
        (folder / "provenance.json").write_text(json.dumps({**content, "init_from": note}))
        with pytest.raises(InputError, match="is damaged"):
            Run(folder)


def test_command_line_begins_with_the_weights_of_a_run(former, tmp_path, capsys):
    argv = ["fit", "--config", str(former.folder / "config.yaml"), "--seed", "3"]
    argv += ["--init_from", str(former.folder), "--run_dir", str(tmp_path / "b")]
    assert main([*argv, "--learner.trainer.max_epochs", "1"]) == 0
    assert Run(tmp_path / "b").provenance["init_from"]["run"] == str(former.folder)
    assert main(["fit", "--help"]) == 0
    assert "--init_from" in capsys.readouterr().out
