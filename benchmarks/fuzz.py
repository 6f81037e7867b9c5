"""Read thousands of damaged and forged files, and count what becomes of them.

    python benchmarks/fuzz.py [--files 10000] [--commands 200] [--seed 0]

Every file must be loaded or refused in one sentence; anything else is printed with its seed, and
kept. A reader that hangs is ended after a minute, and memory is bounded. Every tenth command is one
of a fresh interpreter, the others are forked.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HERE), str(HERE / "tests")]

import mutations  # noqa: E402
import seqvae.console.main  # noqa: E402

SECONDS = 60
MEMORY = 2 * 1024**3


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kinds", default="h5,npz,yaml")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seqvae-fuzz-"))
    corpus = mutations.write_corpus(folder / "whole", HERE / "configs")
    kinds = arguments.kinds.split(",")
    for path in [path for kind in kinds for path in corpus[kind]]:
        assert mutations.read(path) == "loaded", path
    bound_memory()
    failed = 0
    for count, command in ((arguments.files, False), (arguments.commands, True)):
        told: Counter[tuple[str, str]] = Counter()
        slowest, started = 0.0, time.monotonic()
        for number in range(arguments.first, count):
            kind = kinds[number % len(kinds)]
            seed = arguments.seed * 1_000_000 + number + 500_000 * command
            source = corpus[kind][number // len(kinds) % len(corpus[kind])]
            target = folder / f"{number}{source.suffix}"
            change = mutations.mutate(source, target, seed)
            began = time.monotonic()
            if not command:
                faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                answer = (
                    by_command(target, fresh=number % 10 == 0)
                    if command
                    else mutations.read(target)
                )
                told[kind, "loaded" if answer == "loaded" else "refused"] += 1
                target.unlink()
            except Exception:
                failed += 1
                told[kind, "FAILED"] += 1
                print(f"--- {target} (seed {seed}, {change})\n{traceback.format_exc()}", flush=True)
            faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, time.monotonic() - began)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"{count} files {'by command' if command else 'in one process'}: {dict(told)}; "
              f"{time.monotonic() - started:.0f} s, the slowest {slowest:.2f} s; largest memory "
              f"{memory:.2f} GB", flush=True)  # fmt: skip
    return 1 if failed else 0


def bound_memory() -> None:
    """Let this process take no more than ``MEMORY`` beyond what it has mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, resource.RLIM_INFINITY))


def by_command(path: Path, *, fresh: bool) -> str:
    """Read a file through the command line, in a process of its own.

    A fresh interpreter takes seconds to import torch; else this one is forked.
    """
    words = ["fit", "--config", str(path), "--print_config"]
    if path.suffix != ".yaml":
        words = ["check", "--data.source.path", str(path)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if fresh:
            argv = [sys.executable, "-m", "seqvae", *words]
            code = subprocess.run(
                argv, cwd=HERE, stdout=out, stderr=err, preexec_fn=bound_time, check=False
            ).returncode
        else:
            code = forked(words, out.fileno(), err.fileno())
        err.seek(0)
        told = err.read().decode()
    lines = [line for line in told.splitlines() if "warning: " not in line]
    assert code in (0, 2), (code, told)
    assert len(lines) == (1 if code == 2 else 0), lines
    return lines[0] if lines else "loaded"


def bound_time() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def forked(words: list[str], out: int, err: int) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    bound_time()
    os.dup2(out, 1)
    os.dup2(err, 2)
    code = 1
    try:
        code = seqvae.console.main.main(words)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    raise SystemExit(main())
