"""Several commands that search together in one folder: what they find, and whom they let in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from seqvae import VAE, InputError, tune
from seqvae.objectives import Objective
from seqvae.storage import shards
from seqvae.storage.locking import locked
from seqvae.storage.shards import Shard, locked_share
from seqvae.tuning import Record, Study, wait_for, waiting
from seqvae.verbs import searching
from tiny import tiny_data, tiny_learner

TESTS = Path(__file__).parent
SMALL = partial(VAE, latent_dim=2, objective=Objective(beta_steps=4))
SEARCHES = {
    "tpe": {"num_fits": 14},
    "pbt": {"search": "pbt", "population": 3, "generations": 2},
}
pytestmark = pytest.mark.filterwarnings("ignore:the first generation")


def search(folder, kind, **settings):
    settings = {"progress": False, **SEARCHES[kind], **settings}
    return tune(tiny_data(), SMALL, tiny_learner(2), out_dir=str(folder), **settings)


def begun(folder, kind, shard):
    """A process that makes a share of a search."""
    code = f"from test_shared_search import search; search({str(folder)!r}, {kind!r}, "
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", f"{code}shard={shard!r}, progress=True)"],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_until(condition):
    until = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def assert_same(one, other):
    columns = [name for name in one.table if name != "seconds"]
    assert one.table[columns].equals(other.table[columns])
    for name in ("best.yaml", "summary.json"):
        assert (one.folder / name).read_text() == (other.folder / name).read_text()


def test_two_shares_one_of_which_was_killed_find_what_one_command_finds(tmp_path):
    folder = tmp_path / "shared"
    first = begun(folder, "pbt", "1/2")
    wait_until(lambda: (folder / "fits/0002.json").exists() or first.poll() is not None)
    with pytest.raises(InputError, match="is in use by process"):
        search(folder, "pbt", shard="1/2")
    time.sleep(1.5)  # it waits for fit 1
    first.kill()
    assert "waits for 1, of other shards" in first.communicate()[1]
    assert {path.stem for path in folder.glob("fits/*.json")} == {"0000", "0002"}
    first = begun(folder, "pbt", "1/2")
    second = search(folder, "pbt", shard="2/2")
    _, told = first.communicate(timeout=100)
    assert first.returncode == 0, told
    whole = search(tmp_path / "whole", "pbt")
    assert_same(second, whole)
    for number in (3, 4, 5):
        files = [study.place(number) / "history.csv" for study in (second, whole)]
        assert files[0].read_text() == files[1].read_text()


@pytest.mark.parametrize("num_shards", [2, 3])
def test_what_is_proposed_is_what_one_command_proposes(num_shards, tmp_path, monkeypatch):
    """Fits that cost nothing, in threads."""

    def fitted(data, stages, place, task):
        place(task.number).mkdir()
        score = float(np.cos(3 * task.number))
        return Record(task.number, task.settings, score, "elbo", 1.0)

    monkeypatch.setattr(searching, "fit_of_task", fitted)
    monkeypatch.setattr(waiting, "SECONDS_BETWEEN_LOOKS", 0.05)
    folder, numbers = tmp_path / "shared", range(1, num_shards + 1)
    with ThreadPoolExecutor(num_shards) as threads:
        shares = [
            threads.submit(search, folder, "tpe", shard=f"{number}/{num_shards}")
            for number in numbers
        ]
    whole = search(tmp_path / "whole", "tpe")
    for share in shares:
        assert_same(share.result(), whole)


def test_a_first_fit_that_fails_ends_all_shares_and_is_tried_again(tmp_path, monkeypatch):
    facts = {"former": {}, "checksum": ""}
    study = Study.opened(tmp_path / "study", facts)
    other = Study.opened(tmp_path / "study", facts)
    study.add(Record(0, {}, None, None, 1.0, "no memory"))
    assert next(wait_for(other, [0, 1], bar=tqdm(disable=True))) == 0
    with pytest.raises(InputError, match="the settings as they are cannot be fitted: no memory"):
        searching._check_first(other)
    real = searching.fit_of_task

    def fails(*words):
        return replace(real(*words), score=None, error="no memory")

    monkeypatch.setattr(searching, "fit_of_task", fails)
    with pytest.raises(InputError, match="the settings as they are cannot be fitted: no memory"):
        search(tmp_path / "a", "pbt")
    monkeypatch.setattr(searching, "fit_of_task", real)
    assert search(tmp_path / "a", "pbt").records[0].error is None


def test_a_share_tells_for_which_fits_it_waits(tmp_path, monkeypatch):
    study = Study.opened(tmp_path / "study", {"former": {}, "checksum": ""})
    other = Study.opened(tmp_path / "study", {"former": {}, "checksum": ""})
    told, waits = StringIO(), []

    def sleep(seconds):
        waits.append(told.getvalue())
        study.add(Record(3 if len(waits) == 1 else 2, {}, 1.0, "elbo", 1.0))

    monkeypatch.setattr(waiting.time, "sleep", sleep)
    with tqdm(total=4, initial=1, disable=False, file=told, ncols=90) as bar:
        assert list(wait_for(other, [2, 3], bar=bar)) == [3, 2]
        assert bar.n == 3
    assert "waits for 2, 3, of other shards" in waits[0]
    assert "waits for 2, of other shards" in waits[1]
    assert other.records == study.records


def test_shares_of_one_division_are_held_beside_each_other_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SECONDS_OF_PATIENCE", 0.2)
    folder = tmp_path
    with locked_share(folder, Shard(1, 2), key="out_dir"):
        with locked_share(folder, Shard(2, 2), key="out_dir"):
            pass
        for shard in (Shard(1, 2), Shard(), Shard(1, 3)):
            with (
                pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
                locked_share(folder, shard, key="out_dir"),
            ):
                pass
        with locked(folder, key="out_dir", name=Shard(2, 2).lock):
            pass  # nothing of these attempts is left
    (folder / Shard(3, 5).lock).write_text("1 elsewhere")  # of a command that was killed
    with locked_share(folder, Shard(), key="out_dir"):
        assert [path.name for path in folder.iterdir()] == [Shard().lock]
