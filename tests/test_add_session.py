"""A session is added to a fitted model by parameters of its own, all else as it was."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqvae
from seqvae.console.main import main
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Lorenz, Sessions, write_npz
from seqvae.encoders import FreeGaussian, InformationMLP, LinearReadIn
from seqvae.errors import InputError
from seqvae.learning import EM
from seqvae.models import FLDS, PCA, VAE, LinearDynamics, NonlinearDynamics
from seqvae.storage.weights import read_weights
from tiny import SVAE, tiny_learner

NEURONS = {"a": 10, "b": 7, "new": 9}
READ_IN = partial(LinearReadIn, output_dim=3)
QUIET = EM(max_iterations=3, progress=False)
MODELS = {
    "plds": (partial(LinearDynamics, latent_dim=2), QUIET),
    "nlds": (partial(NonlinearDynamics, latent_dim=2, dynamics_dims=(3,), decoder_dims=(3,)),
             tiny_learner(1)),
    "svae": (partial(SVAE, read_in=READ_IN), tiny_learner(1)),
    "direct": (SVAE, tiny_learner(1)),
    "flds": (partial(FLDS, latent_dim=2, decoder_dims=(3,),
                     encoder=partial(InformationMLP, hidden_dims=(4,), read_in=READ_IN)),
             tiny_learner(1)),
}  # fmt: skip


def simulated(name: str) -> Recording:
    return Lorenz(
        num_trials=16,
        num_val=4,
        num_time_bins=25,
        num_neurons=NEURONS[name],
        num_heldout=2,
        mean_count=1.0,
        seed=list(NEURONS).index(name),
        num_conditions=4,
    ).load()


def two(**settings: Any) -> NeuralData:
    sessions = Sessions([simulated("a"), simulated("b")], names=["a", "b"])
    return NeuralData(sessions, batch_size=8, **settings)


@pytest.mark.parametrize("kind", MODELS)
def test_former_sessions_are_answered_as_before(kind: str) -> None:
    run = seqvae.fit(two(), *MODELS[kind], in_memory=True)
    before = {name: weight.clone() for name, weight in run.model().state_dict().items()}
    made = seqvae.add_session(run, simulated("new"), name="new", in_memory=True)
    assert made.data().sessions == ("a", "b", "new")
    assert made.spec.num_neurons == sum(NEURONS.values())
    for name, weight in run.model().state_dict().items():
        assert torch.equal(weight, before[name])  # the run itself is not touched
    for name in ("a", "b"):
        one, other = (seqvae.infer(each, session=name, num_samples=3) for each in (run, made))
        assert np.array_equal(one.neuron.values, other.neuron.values)
        assert np.allclose(one.rates.values, other.rates.values, rtol=1e-4)
    own = seqvae.infer(made, session="new", num_samples=3)
    assert own.sizes["neuron"] == NEURONS["new"]
    assert not np.isnan(own.rates.values).any()


@pytest.mark.parametrize("kind", ["plds", "svae"])
def test_what_is_learned_is_of_the_new_neurons_alone(kind: str) -> None:
    run = seqvae.fit(two(), *MODELS[kind], in_memory=True)
    made = seqvae.add_session(run, simulated("new"), in_memory=True)
    old, new, learned = run.model().state_dict(), made.model().state_dict(), 0
    for name, weight in new.items():
        former = old[name]
        whole = weight[tuple(slice(0, size) for size in former.shape)]
        assert torch.equal(whole, former), name
        parameters = dict(made.model().named_parameters())
        learned += weight.numel() - former.numel() if name in parameters else 0
    note = made.provenance["added_session"]
    assert note["parameters"] == learned
    assert note["of"] == sum(one.numel() for one in made.model().parameters())


def test_a_session_begins_where_its_conditions_match() -> None:
    """The rates of the new neurons follow the true ones after next to no learning."""
    run = seqvae.fit(two(), partial(LinearDynamics, latent_dim=3),
                     EM(max_iterations=15, progress=False), in_memory=True)  # fmt: skip
    few, new = EM(max_iterations=1, progress=False), simulated("new")
    mixed_up = new.changed(condition=(new.condition + 1) % 4)
    scores = []
    for recording in (new, mixed_up):
        made = seqvae.add_session(run, recording, few, name="new", in_memory=True)
        rates = seqvae.infer(made, session="new", num_samples=2).rates.values
        error, spread = ((new.rates - one) ** 2 for one in (rates, new.rates.mean((0, 1))))
        scores.append(float(np.mean(1 - error.sum((0, 1)) / spread.sum((0, 1)))))
    assert scores[0] > 0.5
    assert scores[0] > scores[1] + 0.05


def test_trials_that_are_not_alike_are_no_reason_for_large_readouts() -> None:
    """Averages over them are flat, and what explains them would explode in single trials."""

    def session(seed: int) -> Recording:
        return Lorenz(num_trials=30, num_val=6, num_time_bins=25, num_neurons=9, num_heldout=2,
                      mean_count=1.0, seed=seed).load()  # fmt: skip

    data = NeuralData(Sessions([session(0), session(1)], names=["a", "b"]))
    model = partial(NonlinearDynamics, latent_dim=3, decoder_dims=(16, 16))
    run = seqvae.fit(data, model, tiny_learner(20), in_memory=True)
    made = seqvae.add_session(run, session(2), name="new", learner=tiny_learner(1), in_memory=True)
    counts = seqvae.infer(made, session="new", num_samples=3).rates * made.spec.bin_width
    assert float(counts.max()) < 15  # of means near 1


def test_a_run_folder_gets_a_session_and_stays_as_it_is(tmp_path: Path) -> None:
    for name in NEURONS:
        write_npz(simulated(name), tmp_path / f"{name}.npz")
    folder, wider = str(tmp_path / "run"), str(tmp_path / "wider")
    data = NeuralData(str(tmp_path / "[ab].npz"))
    seqvae.fit(data, *MODELS["plds"], run_dir=folder)
    content = {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    made = seqvae.add_session(folder, str(tmp_path / "new.npz"), run_dir=wider)
    assert content == {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    again = seqvae.Run(wider)
    assert again.data().sessions == ("a", "b", "new")
    weights = read_weights(again.files.weights)
    assert all(torch.equal(weight, weights[name])
               for name, weight in made.model().state_dict().items())  # fmt: skip
    assert again.provenance["added_session"]["run"] == folder
    # and a third session goes to the wider run as any
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    with pytest.raises(InputError, match="hold the same activity"):
        seqvae.add_session(wider, str(tmp_path / "c.npz"), in_memory=True)
    with pytest.raises(InputError, match="is not empty; give a new folder"):
        seqvae.add_session(folder, str(tmp_path / "c.npz"), run_dir=wider)
    (tmp_path / "b.npz").unlink()
    with pytest.raises(InputError, match=r"b\.npz' does not exist"):
        seqvae.add_session(seqvae.Run(folder), simulated("new"), in_memory=True)


def test_a_run_of_one_recording_becomes_one_of_two_sessions() -> None:
    run = seqvae.fit(NeuralData(simulated("a")), *MODELS["plds"], in_memory=True)
    made = seqvae.add_session(run, simulated("new"), name="new", in_memory=True)
    assert made.data().sessions == ("0", "new")
    assert made.spec.num_neurons == 19


def test_what_does_not_go_together_is_refused() -> None:
    run = seqvae.fit(two(), *MODELS["plds"], in_memory=True)
    new = simulated("new")
    with pytest.raises(InputError, match="there is a session 'a' already"):
        seqvae.add_session(run, new, name="a", in_memory=True)
    wide = Recording(new.read(), 0.02, split=new.split)
    with pytest.raises(InputError, match=r"session '2' has bins of 0\.02 s"):
        seqvae.add_session(run, wide, in_memory=True)
    other = new.changed(condition=new.condition + 10)
    with pytest.raises(InputError, match=r"no condition in common with those of the run.*trials"):
        seqvae.add_session(run, other, in_memory=True)
    matched = NeuralData(other, alignment="trials")
    assert seqvae.add_session(run, matched, in_memory=True).data().sessions[-1] == "2"


def test_models_that_cannot_share_are_refused() -> None:
    kept = partial(VAE, latent_dim=2, factor_dim=3, encoder=FreeGaussian)
    parts = [simulated(name).changed(split=None) for name in ("a", "b")]
    data = NeuralData(Sessions(parts), val_fraction=0.0, batch_size=8)
    run = seqvae.fit(data, kept, tiny_learner(1), in_memory=True)
    with pytest.raises(InputError, match="VAE keeps a posterior for each trial"):
        seqvae.add_session(run, simulated("new"), in_memory=True)
    run = seqvae.fit(two(), partial(PCA, latent_dim=2), in_memory=True)
    with pytest.raises(InputError, match="ClosedForm learns all of a model at once"):
        seqvae.add_session(run, simulated("new"), in_memory=True)


def test_the_command_adds_a_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NEURONS:
        write_npz(simulated(name), tmp_path / f"{name}.npz")
    pattern, folder, wider = (str(tmp_path / name) for name in ("[ab].npz", "run", "wider"))
    command = ["fit", "--data.source", "Sessions", "--data.source.sources", pattern]
    command += ["--model", "LinearDynamics", "--model.latent_dim", "2", "--run_dir", folder]
    command += ["--learner.max_iterations", "2", "--learner.progress", "false"]
    assert main(command) == 0
    command = ["add-session", "--run", folder, "--data.source.path", str(tmp_path / "new.npz")]
    assert main([*command, "--run_dir", wider, "--learner.max_iterations", "1"]) == 0
    assert f"session new added to {folder}: 27 of " in capsys.readouterr().out
    assert seqvae.Run(wider).data().sessions == ("a", "b", "new")
    assert main(["infer", "--run", wider, "--session", "new", "--num_samples", "2"]) == 0
    assert main(["infer", "--run", wider, "--session", "old"]) == 2
    assert "session 'old' is unknown" in capsys.readouterr().err
    learner = seqvae.Run(wider).config["learner"]["init_args"]
    assert (learner["max_iterations"], learner["progress"]) == (1, False)  # else as the run
    page = tmp_path / "page.html"
    assert main(["report", "--run", wider, "--num_samples", "2", "--out", str(page)]) == 0
    text = page.read_text()
    assert "those of several sessions: a, b, new." in text
    assert f"The session new was added to {folder}" in text
    assert "scores of each session" in text
    assert f"add_session --run {folder} --data.source" in text
    assert "--from_run" not in text
    capsys.readouterr()
    assert main(["fit", "--from_run", wider, "--run_dir", str(tmp_path / "again")]) == 2
    assert f"repeat that with seqvae add_session --run {folder}" in capsys.readouterr().err
    assert main([*command, "--run_dir", str(tmp_path / "c"), "--data.heldout", "0.5"]) == 2
    assert "data.heldout is that of the run, None, got 0.5" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / "c").exists()
