"""Nothing that was written is lost or silently wrong, whatever ends a command, or spoils a file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from joblib.externals.loky.process_executor import TerminatedWorkerError

from seqvae import EM, InputError, Run, crossvalidate, evaluate, fit, infer
from seqvae.analysis.posterior_file import PosteriorWriter
from seqvae.compute.workers import Workers
from seqvae.console import main as cli
from seqvae.crossvalidation import cell as cells
from seqvae.data.sources import HDF5, Npz, write_hdf5, write_npz
from seqvae.errors import Terminated, UnwritableError
from seqvae.learning import expectation_maximization as em
from seqvae.learning.callbacks import History
from seqvae.learning.gradient import check_checkpoint
from seqvae.learning.observers.run_folder import RunFolder
from seqvae.models import LinearDynamics
from seqvae.storage.files import Lenient, RunFiles, atomic_path, is_empty, write_text
from seqvae.storage.history import read_history
from seqvae.storage.locking import locked
from seqvae.storage.weights import load_weights
from tiny import LORENZ, SVAE, first_inequality, tiny_data, tiny_learner, weights

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX"),
    pytest.mark.filterwarnings("ignore:.*largest of the grid"),
]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


@contextmanager
def largest_file(num_bytes):
    """No file may grow larger: what a full disk does, on a part of it."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def assert_same_run(one, other):
    assert first_inequality(weights(one.files.weights), weights(other.files.weights)) is None
    assert one.files.history.read_bytes() == other.files.history.read_bytes()
    assert not list(Path(other.folder).rglob(".*"))


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# --- kills and terminations ----------------------------------------------------------------------

FIT = """
import sys
import pytest
sys.path.insert(0, "tests")
from seqvae import fit
from seqvae.learning.observers import figures
from tiny import SVAE, tiny_data, tiny_learner
figures.draw_figures = lambda *_: {}
fit(tiny_data(), SVAE, tiny_learner(16, save_seconds=0.1), run_dir=sys.argv[1])
"""
ROOT = Path(__file__).resolve().parents[1]


def started(code, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path, seconds=120.0):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
        folder = tmp_path_factory.mktemp("whole") / "run"
        return fit(tiny_data(), SVAE, tiny_learner(16, save_seconds=0.1), run_dir=str(folder))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_fit_goes_on_to_the_same_run(number, whole, tmp_path):
    folder = tmp_path / "run"
    process = started(FIT, folder)
    wait_for(folder / "last.ckpt")
    time.sleep(np.random.default_rng().uniform(0, 0.5))
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode in ((-9,) if number == signal.SIGKILL else (143, 0)), told
    assert "Traceback" not in told
    again = fit(
        tiny_data(), SVAE, tiny_learner(16, save_seconds=0.1), run_dir=str(folder), resume=True
    )
    assert_same_run(whole, again)


def test_command_line_tells_how_to_go_on(monkeypatch, tmp_path, capsys):
    def ended(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(History, "on_train_start", ended)
    flags = ["--model", "VAE", "--model.latent_dim", "2", "--data.source", "Lorenz",
             "--data.source.num_trials", "24", "--data.source.num_val", "8",
             "--learner.progress", "false", "--learner.trainer.accelerator", "cpu"]  # fmt: skip
    folder = tmp_path / "run"
    assert cli.main(["fit", *flags, "--run_dir", str(folder)]) == 143
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "seqvae fit: terminated; give the same command again with --resume"
    assert len(weights(folder / "last.ckpt")["callbacks"]["History"]["rows"]) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_epoch_that_lasts_too_long_is_not_waited_for(monkeypatch, tmp_path):
    def ended(self, *_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(History, "on_train_start", ended)
    began = time.monotonic()
    with pytest.raises(Terminated, match="again with --resume"):
        fit(tiny_data(), SVAE, tiny_learner(2, save_seconds=0.2), run_dir=str(tmp_path / "run"))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("ends_at", [4, 12])
def test_terminated_em_is_begun_anew_without_a_step_back(ends_at, tmp_path, monkeypatch):
    go = partial(fit, tiny_data(), LinearDynamics, EM(max_iterations=15, validate_every=5,
                 tolerance=0.0, progress=False))  # fmt: skip
    real, folder = em._row, tmp_path / "run"
    steps = []
    for end in (12, ends_at):
        monkeypatch.setattr(em, "_row", partial(_ended_at, real, end))
        with pytest.raises(Terminated, match="again with --resume"):
            go(run_dir=str(folder), resume=bool(steps))
        steps.append(weights(folder / "weights.pt")["step"])
        assert steps[-1] == 13  # that of the iteration, whose row is not yet there
    monkeypatch.setattr(em, "_row", real)
    assert_same_run(go(run_dir=str(tmp_path / "whole")), go(run_dir=str(folder), resume=True))


def _ended_at(real, end, state, *settings):
    row = real(state, *settings)
    if state.iteration == end + 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return row


def test_fit_that_was_killed_before_it_began_is_begun_anew(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".provenance.json.ab12.tmp", ".lock", "provenance.json"):
        (folder / name).touch()
    run = fit(tiny_data(), SVAE, tiny_learner(1), run_dir=str(folder))
    assert run.model()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("num_moves", [0, 1, 2, 3, 4])
def test_run_is_whole_wherever_overwriting_is_killed(num_moves, copy, monkeypatch):
    """The former run comes back with the next command, whichever file was the last to move."""
    folder = Path(copy.folder)
    before = contents(folder)
    real, moved = os.replace, []

    def replace(source, target):
        moved.append(source)
        if len(moved) > num_moves:
            raise KeyboardInterrupt
        real(source, target)

    go = partial(fit, tiny_data(), SVAE, tiny_learner(1), run_dir=str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            go(overwrite=True)
    with pytest.raises(InputError, match="already holds a run"):
        go()
    assert contents(folder) == before
    assert go(overwrite=True).model()
    assert not list(folder.glob(".*"))


def fails(*_, **__):
    raise InputError("the loss is not finite")


def test_run_that_should_be_overwritten_stays_if_the_new_one_fails(copy, monkeypatch):
    folder = Path(copy.folder)
    before = contents(folder)
    go = partial(fit, tiny_data(), SVAE, run_dir=str(folder), overwrite=True, seed=3)
    for method in ("end", "best"):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, method, fails)
            with pytest.raises(InputError, match="the loss is not finite"):
                go(tiny_learner(2))
        assert contents(folder) == before
    go(tiny_learner(2))
    assert contents(folder) != before
    assert not list(folder.glob(".*"))


def test_unfinished_run_in_the_place_of_another_can_be_resumed_or_given_up(copy, monkeypatch):
    folder = Path(copy.folder)
    before = contents(folder)
    go = partial(fit, tiny_data(), SVAE, run_dir=str(folder), seed=3)

    def interrupted(*_, **__):
        raise SystemExit

    monkeypatch.setattr(RunFolder, "end", interrupted)
    with pytest.raises(SystemExit):
        go(tiny_learner(2), overwrite=True)
    assert Run(folder).seed == 3
    monkeypatch.setattr(RunFolder, "end", fails)
    with pytest.raises(InputError, match="not finite"):
        go(tiny_learner(2), overwrite=True)
    assert contents(folder) == before
    monkeypatch.setattr(RunFolder, "end", interrupted)
    with pytest.raises(SystemExit):
        go(tiny_learner(2), overwrite=True)
    monkeypatch.undo()
    go(tiny_learner(3), resume=True)
    assert not list(folder.glob(".*"))
    assert Run(folder).seed == 3


def test_terminated_inference_leaves_nothing(whole, tmp_path, monkeypatch, capsys):
    def write(self, *_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PosteriorWriter, "write", write)
    flags = ["--run", str(whole.folder), "--out", str(tmp_path / "a.nc")]
    assert cli.main(["infer", *flags]) == 143
    assert capsys.readouterr().err == "seqvae infer: terminated\n"
    assert list(tmp_path.iterdir()) == []


# --- two at once ---------------------------------------------------------------------------------


def test_second_fit_is_refused_and_reading_goes_on(whole):
    before = contents(whole.folder)
    with locked(Path(whole.folder), key="run_dir"):
        for settings in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(InputError, match="is in use by process"):
                fit(tiny_data(), SVAE, tiny_learner(2), run_dir=str(whole.folder), **settings)
        assert infer(str(whole.folder), num_samples=2).sizes["trial"] == 24
        assert evaluate(str(whole.folder), num_samples=2)["elbo"]
    assert contents(whole.folder) == before


def test_run_that_is_overwritten_while_it_is_read_is_no_mixture(copy):
    run = Run(copy.folder)
    fit(tiny_data(), SVAE, tiny_learner(1), seed=1, run_dir=str(copy.folder), overwrite=True)
    if run.provenance["created"] == Run(copy.folder).provenance["created"]:
        run.provenance["created"] = "a second before"
    with pytest.raises(InputError, match="was overwritten just now"):
        infer(run, num_samples=2)


GRID = {
    "models": {"lds": LinearDynamics},
    "learners": {"lds": EM(max_iterations=3, progress=False)},
    "dims": [1, 2], "trial_folds": 2, "neuron_folds": 2, "num_samples": 5, "progress": False,
}  # fmt: skip


def small(folder, **settings):
    return crossvalidate(tiny_data(), **{**GRID, "out_dir": str(folder), **settings})


def test_same_share_of_a_grid_is_done_by_one_command(tmp_path):
    with (
        locked(tmp_path / "cv", key="out_dir"),
        pytest.raises(InputError, match=r"out_dir .* is in use"),
    ):
        small(tmp_path / "cv")
    with locked(tmp_path / "cv", key="out_dir", name=".lock-1-of-2"):
        with pytest.raises(InputError, match=r"out_dir .* is in use"):
            small(tmp_path / "cv", shard="1/2")
        assert small(tmp_path / "cv", shard="2/2").num_missing


# --- full disks ----------------------------------------------------------------------------------


def test_disk_that_is_full_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with largest_file(100), pytest.raises(UnwritableError, match=r"a\.txt cannot be written: File"):
        write_text(path, "new" * 100)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("room", [0, 9_000, 60_000])
def test_fit_on_a_full_disk_says_so_and_goes_on_when_there_is_room(room, tmp_path):
    go = partial(fit, tiny_data(), SVAE, tiny_learner(4), run_dir=str(tmp_path / "run"))
    with largest_file(room), pytest.raises(UnwritableError, match="cannot be written: File too"):
        go()
    assert is_empty(tmp_path / "run") or Run(tmp_path / "run")
    assert not list(tmp_path.rglob(".*"))
    has_begun = (tmp_path / "run" / "config.yaml").exists()
    assert has_begun == (room > 0)
    fit_whole = fit(tiny_data(), SVAE, tiny_learner(4), run_dir=str(tmp_path / "whole"))
    assert_same_run(fit_whole, go(resume=has_begun))


def test_figure_that_finds_no_room_loses_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    large = Figure(figsize=(15, 15))
    large.subplots().imshow(np.random.default_rng(0).random((1200, 1200)))
    go = partial(fit, tiny_data(), SVAE, tiny_learner(2), run_dir=str(tmp_path / "run"))
    monkeypatch.setattr(
        "seqvae.learning.observers.figures.draw_figures", lambda *_: {"large": large}
    )
    with largest_file(1_000_000), pytest.raises(UnwritableError, match=r"large\.png cannot be"):
        go()
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    fit_whole = fit(tiny_data(), SVAE, tiny_learner(2), run_dir=str(tmp_path / "whole"))
    assert first_inequality(
        weights(fit_whole.files.weights), weights(go(resume=True).files.weights)
    ) is None  # fmt: skip


@pytest.mark.parametrize("room", [0, 1_000, 5_000, 9_000, 20_000])
def test_inference_onto_a_full_disk_keeps_the_old_posterior(room, whole, tmp_path):
    path = tmp_path / "posterior.nc"
    infer(whole, split="val", num_samples=2, out=str(path)).close()
    before = path.read_bytes()
    with largest_file(room), pytest.raises(UnwritableError, match=r"posterior\.nc cannot be"):
        infer(whole, num_samples=2, out=str(path))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_evaluation_onto_a_full_disk_keeps_the_old_scores(whole, tmp_path):
    write_text(tmp_path / "scores.json", "{}")
    with largest_file(50), pytest.raises(UnwritableError, match=r"scores\.json cannot be written"):
        evaluate(whole, num_samples=2, out=str(tmp_path / "scores.json"))
    assert (tmp_path / "scores.json").read_text() == "{}"


@pytest.mark.parametrize("room", [0, 200])
def test_grid_on_a_full_disk_keeps_its_cells(room, tmp_path):
    with largest_file(room), pytest.raises(UnwritableError, match="cannot be written: File too"):
        small(tmp_path / "cv")
    small(tmp_path / "cv")
    small(tmp_path / "whole")
    ours, theirs = (pd.read_csv(tmp_path / name / "scores.csv") for name in ("cv", "whole"))
    pd.testing.assert_frame_equal(ours.drop(columns="seconds"), theirs.drop(columns="seconds"))


@pytest.mark.parametrize(("write", "read"), [(write_hdf5, HDF5), (write_npz, Npz)])
def test_recording_that_finds_no_room_keeps_the_old_file(write, read, tmp_path):
    path, recording = tmp_path / f"a.{'h5' if read is HDF5 else 'npz'}", LORENZ.load()
    write(recording, path)
    size = path.stat().st_size
    for room in range(0, size, 1024):
        with largest_file(room), pytest.raises(UnwritableError, match="cannot be written"):
            write(recording, path)
    assert read(path).load().checksum == recording.checksum
    assert list(tmp_path.iterdir()) == [path]


def test_interrupt_within_hdf5_comes_out_of_it(tmp_path):
    import h5py

    class Interrupted(Lenient):
        def seek(self, *where):
            if self.tell() > 4096 and self.error is None:
                self.error = Terminated()
            return super().seek(*where)

    def write():
        with atomic_path(tmp_path / "a.h5") as draft, Interrupted(draft) as raw:
            with h5py.File(raw, "w") as h:
                h["x"] = np.random.default_rng(0).normal(size=10_000)
            raw.check()

    with pytest.raises(Terminated):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_readonly_run_answers_and_refuses_to_be_written(whole, tmp_path):
    import shutil

    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    folder.chmod(0o500)
    try:
        assert infer(str(folder), num_samples=2).sizes["trial"] == 24
        with pytest.raises(UnwritableError, match="cannot be written: Permission denied"):
            infer(str(folder), num_samples=2, out=str(folder / "posterior.nc"))
        with pytest.raises(UnwritableError, match=r"run_dir .* cannot be written: Permission"):
            fit(tiny_data(), SVAE, tiny_learner(2), run_dir=str(folder), resume=True)
    finally:
        folder.chmod(0o700)


# --- torn files ----------------------------------------------------------------------------------


def torn(path):
    """The file cut at every 4 kB and a few odd places, one after the other."""
    content = path.read_bytes()
    places = {*range(0, len(content), 4096), 1, 7, len(content) // 2, len(content) - 1}
    for place in sorted(places):
        path.write_bytes(content[:place])
        yield place
    path.write_bytes(content)


@pytest.fixture
def copy(whole, tmp_path):
    import shutil

    return RunFiles(Path(shutil.copytree(whole.folder, tmp_path / "copy")))


def test_torn_weights_and_checkpoints_are_refused(whole, copy):
    model = whole.model()
    for _ in torn(copy.weights):
        with pytest.raises(InputError, match=r"weights\.pt"):
            load_weights(copy.weights, model)
    for _ in torn(copy.last_checkpoint):
        with pytest.raises(InputError, match=r"last\.ckpt.*(start anew|--overwrite|overwrite)"):
            check_checkpoint(copy.last_checkpoint, model)


def test_torn_facts_are_refused_or_whole(whole, copy):
    for path in (copy.config, copy.provenance):
        for place in torn(path):
            try:
                run = Run(copy.folder)
            except InputError:
                continue
            assert place == path.stat().st_size
            assert run.config == whole.config
            assert run.spec == whole.spec


def test_torn_history_costs_a_row_at_most(copy):
    whole_rows, size = read_history(copy.history), copy.history.stat().st_size
    for place in torn(copy.history):
        rows = read_history(copy.history)
        assert rows == whole_rows[: len(rows)]
        assert len(rows) >= len(whole_rows) * place / size - 2
    copy.history.unlink()
    assert read_history(copy.history) == []


def test_torn_posterior_cannot_be_read(whole, tmp_path):
    path = tmp_path / "a.nc"
    infer(whole, num_samples=2, out=str(path)).close()
    for _ in torn(path):
        with pytest.raises((OSError, ValueError)):
            xr.open_dataset(path, engine="h5netcdf")


# --- workers -------------------------------------------------------------------------------------


def assert_same_grid(one, other):
    tables = [pd.read_csv(Path(f) / "scores.csv").drop(columns="seconds") for f in (one, other)]
    pd.testing.assert_frame_equal(*tables)


def test_grid_goes_on_after_a_worker_was_killed(tmp_path, monkeypatch):
    real, calls = Workers._numbered, []

    def sometimes(workers, function, tasks, *settings):
        calls.append(len(tasks))
        for place, told in enumerate(real(workers, function, tasks, *settings)):
            if place == 1 and len(calls) < 3:
                raise TerminatedWorkerError("killed")
            yield told

    monkeypatch.setattr(Workers, "_numbered", sometimes)
    small(tmp_path / "cv")
    assert len(calls) == 3
    assert calls[0] > calls[1] > calls[2]
    monkeypatch.setattr(Workers, "_numbered", real)
    small(tmp_path / "whole")
    assert_same_grid(tmp_path / "whole", tmp_path / "cv")


def test_worker_that_is_killed_again_and_again_ends_the_grid_in_a_sentence(tmp_path, monkeypatch):
    def never(*_):
        raise TerminatedWorkerError("killed")
        yield

    monkeypatch.setattr(Workers, "_numbered", never)
    with pytest.raises(InputError, match=r"killed again and again.*lower jobs"):
        small(tmp_path / "cv")


def test_terminated_grid_keeps_its_cells(tmp_path, monkeypatch):
    real, done = cells._scored, []

    def some(job):
        done.append(job)
        if len(done) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(job)

    monkeypatch.setattr(cells, "_scored", some)
    with pytest.raises(Terminated, match="the cells that are done are kept"):
        small(tmp_path / "cv")
    assert len(list((tmp_path / "cv" / "cells").glob("*.json"))) == 3
    assert not list(tmp_path.rglob(".*"))
    small(tmp_path / "cv")
    small(tmp_path / "whole")
    assert_same_grid(tmp_path / "whole", tmp_path / "cv")


def test_torn_weights_of_a_chain_are_learned_again(tmp_path):
    settings = {
        "models": {"lds": LinearDynamics},
        "learners": {"lds": EM(max_iterations=3, progress=False)},
        "warm_starts": True,
    }
    small(tmp_path / "cv", **settings)
    for path in (tmp_path / "cv" / "cells").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:4096])
    found = small(tmp_path / "cv", dims=[1, 2, 3], **settings)
    assert set(found.scores["status"]) == {"done"}


@pytest.mark.slow
def test_grid_with_killed_worker_processes_finds_the_same(tmp_path):
    small(tmp_path / "whole")
    code = """
import sys
sys.path.insert(0, "tests")
from test_faults import small
if __name__ == "__main__":
    small(sys.argv[1], jobs=2)
"""
    grid = started(code, tmp_path / "cv")
    wait_for(tmp_path / "cv" / "cells")
    killed = []
    while not killed and grid.poll() is None:
        found = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(grid.pid)], capture_output=True, text=True
        ).stdout
        workers = [line.split()[0] for line in found.splitlines() if "LokyProcess" in line]
        if workers:
            time.sleep(1)
            os.kill(int(workers[0]), signal.SIGKILL)
            killed.append(workers[0])
        time.sleep(0.05)
    _, told = grid.communicate(timeout=200)
    assert grid.returncode == 0, told
    assert_same_grid(tmp_path / "whole", tmp_path / "cv")
