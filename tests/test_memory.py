"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from seqvae.compute.memory import keep_freed_memory
if {keeps}:
    assert keep_freed_memory()
for step in range(24):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(2_000_000) for _ in range(4)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the C library of Linux")
def test_a_process_that_keeps_freed_memory_does_not_ask_for_it_anew():
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}  # hand all back at once
    faults = {
        keeps: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS.format(keeps=keeps)],
                check=True, capture_output=True, text=True, env=environment,
            ).stdout
        )
        for keeps in (False, True)
    }  # fmt: skip
    assert faults[True] * 5 < faults[False]
