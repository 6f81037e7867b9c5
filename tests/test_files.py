from __future__ import annotations

import os
import stat

import pytest

from seqvae.storage.files import RunFiles, atomic_path, write_text


def test_new_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "deep" / "a.txt") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "deep" / "a.txt").exists()
        temporary.write_text("whole")
    assert (tmp_path / "deep" / "a.txt").read_text() == "whole"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_failure_keeps_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("ne")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_without_old_file_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.txt"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_file_has_the_permissions_that_the_umask_grants(tmp_path):
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "for the group")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_run_folder_has_the_layout_that_the_readme_names(tmp_path):
    files = RunFiles(tmp_path)
    found = [files.config, files.weights, files.last_checkpoint, files.history]
    found += [files.figures, files.provenance]
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "config.yaml", "weights.pt", "last.ckpt", "history.csv", "figures", "provenance.json",
    ]  # fmt: skip
