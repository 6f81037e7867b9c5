from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import seqvae

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip("importlinter")
IS_CHECKOUT = Path(seqvae.__file__).parent == ROOT / "seqvae"


@pytest.mark.skipif(not IS_CHECKOUT, reason="the contract stands in pyproject.toml of a checkout")
def test_import_contract_is_kept():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as l; l()",
         "--no-cache", "--no-logo"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not IS_CHECKOUT, reason="the files of a checkout are counted")
def test_files_stay_small_enough_to_read():
    long = {
        str(path.relative_to(ROOT / "seqvae")): lines
        for path in (ROOT / "seqvae").rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long
