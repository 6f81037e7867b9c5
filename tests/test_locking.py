from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from seqvae.errors import InputError
from seqvae.storage.files import is_empty
from seqvae.storage.locking import locked

HOLD = """
import sys, time
from pathlib import Path
from seqvae.storage.locking import locked
with locked(Path(sys.argv[1]), key="run_dir"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_is_told_who_holds_the_folder(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"run_dir .* is in use by process {holder.pid} on "),
        locked(tmp_path / "a", key="run_dir"),
    ):
        pass
    assert is_empty(tmp_path / "a")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_holder_holds_no_more(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert is_empty(tmp_path / "a")
    with locked(tmp_path / "a", key="run_dir"):
        (tmp_path / "a" / "b").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_other_lock_of_the_folder_is_another(tmp_path, holder):
    with locked(tmp_path / "a", key="out_dir", name=".lock-1-of-2"):
        pass


def test_folder_that_was_made_for_nothing_goes(tmp_path):
    with locked(tmp_path / "a" / "b", key="run_dir"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_same_process_is_held_off_too(tmp_path):
    with (
        locked(tmp_path, key="run_dir"),
        pytest.raises(InputError, match=f"in use by process {os.getpid()}"),
        locked(tmp_path, key="run_dir"),
    ):
        pass


def test_file_is_no_folder(tmp_path):
    (tmp_path / "a").touch()
    with (
        pytest.raises(InputError, match="is a file; give a folder"),
        locked(tmp_path / "a", key="run_dir"),
    ):
        pass
