"""Faults on purpose: kills, terminations, full disks, torn files, two commands at once.

    python benchmarks/faults.py [--parts fit grid worker disk torn lock] [--number 20] [--seed 0]

Prints a row for each kind of fault: how many were tried, and what came of them. What should come of
them: after a kill the same command (a fit with ``--resume``) ends with the weights, the history and
the table of a run that nobody touched, bit for bit; whatever the disk or a torn file refuses is one
sentence and exit code 2, and what lay there before is there still.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import torch

from seqvae.console import main as cli

DATA = {
    "data.source": "Lorenz", "data.source.num_trials": 60, "data.source.num_val": 20,
    "data.source.num_time_bins": 30, "data.source.num_neurons": 12, "data.source.num_heldout": 3,
}  # fmt: skip
FIT = {
    **DATA, "model": "SequentialVAE", "model.factor_dim": 3, "model.generator_dim": 16,
    "model.inferred_input_dim": 1, "data.batch_size": 10, "learner.progress": "false",
    "learner.trainer.accelerator": "cpu", "learner.trainer.max_epochs": 25,
    "learner.save_seconds": 0.3, "learner.figures_every": 20,
}  # fmt: skip
GRID = {
    **DATA, "models.lds": "LinearDynamics", "learners.lds.max_iterations": 15, "dims": "[1, 2, 3]",
    "trial_folds": 3, "neuron_folds": 2, "num_samples": 5, "progress": "false",
}  # fmt: skip


def command(verb: str, settings: dict[str, object], **more: object) -> list[str]:
    """Return the words of a command; a setting that is True is a flag."""
    flags = {**settings, **more}
    return [verb, *(word for key, value in flags.items() for word in
                    ([f"--{key}"] if value is True else [f"--{key}", str(value)]))]  # fmt: skip


class Process:
    """The command line in a process of its own, forked so that it need not import anything.

    Args:
        words: of the command.
        log: file of what it prints.
    """

    def __init__(self, words: list[str], log: Path) -> None:
        self.verb, self.log, self.began = words[0], log, time.monotonic()
        self.pid = os.fork()
        if self.pid:
            return
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = 1
        try:
            code = cli.main(words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> int:
        """Return the exit code; minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end_after(self, seconds: float, number: int) -> int:
        """Send a signal so long after the start, to it and all its workers, and wait."""
        until = self.began + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if number == signal.SIGKILL else os.kill(self.pid, number)
        return self.wait()

    def told(self) -> str:
        """Return what it printed."""
        return self.log.read_text(errors="replace")


def judged(process: Process, code: int) -> str:
    """Say what an exit code and its words come to."""
    told = process.told()
    if "Traceback" in told or "Error" in told:
        return f"TRACEBACK, EXIT {code}: {told[-1500:]}"
    lines = [line for line in told.splitlines() if line.startswith(f"seqvae {process.verb}: ")]
    if code == 2 and len([line for line in lines if ": warning: " not in line]) != 1:
        return f"EXIT 2 WITH {lines}"
    return {0: "done", 2: "refused in a sentence", 143: "terminated, 143", -9: "killed"}.get(
        code, f"EXIT {code}"
    )


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two files hold the same weights, bit for bit."""
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (one, other))
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def same_fit(one: Path, other: Path) -> bool:
    """Whether two runs have the same weights and history, and nothing is left over."""
    history = [(folder / "history.csv").read_bytes() for folder in (one, other)]
    left = [path for path in other.rglob(".*")]
    return same_tensors(one / "weights.pt", other / "weights.pt") and history[0] == history[1] and (
        not left
    )  # fmt: skip


def same_grid(one: Path, other: Path) -> bool:
    """Whether two grids have the same table and choices; seconds apart."""
    import pandas as pd

    tables = [pd.read_csv(f / "scores.csv").drop(columns="seconds") for f in (one, other)]
    summaries = [(folder / "summary.json").read_bytes() for folder in (one, other)]
    return tables[0].equals(tables[1]) and summaries[0] == summaries[1]


def ended_at_random(
    kind: str, number: int, how: int, chance: random.Random, folder: Path, *, jobs: int = 1
) -> Counter[str]:
    """End a fit or a grid at random moments, several in each, until it has gone through."""
    outcome: Counter[str] = Counter()
    is_fit = kind == "fit"
    where = "run_dir" if is_fit else "out_dir"
    settings = FIT if is_fit else {**GRID, "jobs": jobs}
    verb = "fit" if is_fit else "crossvalidate"
    whole = folder / "whole"
    process = Process(command(verb, settings, **{where: whole}), folder / "log")
    assert process.wait() == 0, process.told()
    duration = time.monotonic() - process.began
    done = 0
    while done < number:
        target = folder / f"ended-{done}"
        times = chance.randint(1, 4)
        for turn in range(times):
            more = {where: target} | (
                {"resume": True} if is_fit and (target / "config.yaml").exists() else {}
            )
            process = Process(command(verb, settings, **more), folder / "log")
            code = process.end_after(chance.uniform(0, duration / (1 + turn)), how)
            what = judged(process, code)
            outcome[what] += 1
            done += what != "done"
            if what == "done" or done == number:
                break
        more = {where: target} | (
            {"resume": True} if is_fit and (target / "config.yaml").exists() else {}
        )
        process = Process(command(verb, settings, **more), folder / "log")
        if process.wait() != 0:
            outcome["NOT GONE ON: " + process.told()[-300:]] += 1
        elif (same_fit if is_fit else same_grid)(whole, target):
            outcome[f"{kind}s then equal, bit for bit"] += 1
        else:
            outcome[f"{kind.upper()} DIFFERENT"] += 1
        shutil.rmtree(target)
    return outcome


# --- workers -------------------------------------------------------------------------------------


def killed_workers(number: int, chance: random.Random, folder: Path) -> Counter[str]:
    """Kill workers of a grid, as systems do that run out of memory."""
    outcome: Counter[str] = Counter()
    settings = {**GRID, "jobs": 2}
    words = [sys.executable, "-m", "seqvae"]
    whole, log = folder / "whole", folder / "log"
    process = Process(command("crossvalidate", GRID, out_dir=whole), log)
    assert process.wait() == 0, process.told()
    done = 0
    while done < number:
        target = folder / f"worker-{done}"
        with log.open("w") as file:
            grid = subprocess.Popen(
                [*words, *command("crossvalidate", settings, out_dir=target)],
                stdout=file,
                stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for _ in range(chance.randint(1, 3)):
                victim = next(_workers(grid, chance), None)
                with suppress(ProcessLookupError):
                    if victim is not None:
                        os.kill(victim, signal.SIGKILL)
                        done += 1
                        outcome["killed"] += 1
            code = grid.wait()
        if code:
            outcome[f"EXIT {code}: {log.read_text()[-300:]}"] += 1
        elif same_grid(whole, target):
            outcome["grids gone through, equal, bit for bit"] += 1
        else:
            outcome["GRID DIFFERENT"] += 1
        shutil.rmtree(target)
    return outcome


def _workers(grid: subprocess.Popen[bytes], chance: random.Random) -> Iterator[int]:
    """Wait for workers at work, and a moment of chance, and yield them."""
    while grid.poll() is None:
        listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(grid.pid)],
                                capture_output=True, text=True, check=False)  # fmt: skip
        found = [line.split()[0] for line in listed.stdout.splitlines() if "LokyProcess" in line]
        if found:
            time.sleep(chance.uniform(2, 6))
            if grid.poll() is None:
                yield int(chance.choice(found))
            return
        time.sleep(0.1)


# --- full disks ----------------------------------------------------------------------------------


def full_disk(number: int, folder: Path) -> Counter[str]:
    """Run every verb that writes on disks of many sizes, each too small; then make room."""
    outcome: Counter[str] = Counter()
    disk, whole = folder / "disk", folder / "whole"
    process = Process(command("fit", FIT, run_dir=whole), folder / "log")
    assert process.wait() == 0, process.told()
    grid = folder / "grid"
    process = Process(command("crossvalidate", GRID, out_dir=grid), folder / "log")
    assert process.wait() == 0, process.told()
    disk.mkdir()
    verbs: dict[str, Callable[[], list[str]]] = {
        "fit": lambda: command("fit", FIT, run_dir=disk / "run"),
        "crossvalidate": lambda: command("crossvalidate", GRID, out_dir=disk / "grid"),
        "infer": lambda: command("infer", {"run": whole, "out": disk / "a.nc"}),
        "evaluate": lambda: command("evaluate", {"run": whole, "out": disk / "a.json"}),
    }
    most = {"fit": 3200, "crossvalidate": 160, "infer": 1400, "evaluate": 8}
    for verb, words in verbs.items():
        for step in range(number):
            size = 4 + 4 * (most[verb] * step // number // 4)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(disk)],
                           check=True)  # fmt: skip
            process = Process(words(), folder / "log")
            what = judged(process, process.wait())
            outcome[f"{verb}: {what}"] += 1
            left = [path for path in disk.rglob("*") if path.name.startswith(".")]
            outcome[f"{verb}: LEFT OVER {left}"] += bool(left)
            if what != "done":
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                has_begun = verb == "fit" and (disk / "run/config.yaml").exists()
                process = Process([*words(), *(["--resume"] if has_begun else [])], folder / "log")
                if process.wait():
                    outcome[f"{verb}: NOT GONE ON: {process.told()[-300:]}"] += 1
                elif verb == "fit" and not same_fit(whole, disk / "run"):
                    outcome["fit: DIFFERENT"] += 1
                elif verb == "crossvalidate" and not same_grid(grid, disk / "grid"):
                    outcome["crossvalidate: DIFFERENT"] += 1
                else:
                    outcome[f"{verb}: then, with room, done (equal)"] += 1
            subprocess.run(["umount", str(disk)], check=True)
    return +outcome


def read_only(folder: Path) -> Counter[str]:
    """Use a run and a grid on a disk that cannot be written."""
    outcome: Counter[str] = Counter()
    disk, out = folder / "readonly", folder / "out"
    disk.mkdir()
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
    short = {**FIT, "learner.trainer.max_epochs": 3, "learner.figures_every": 0}
    made = command("fit", short, run_dir=disk / "run")
    cells = command("crossvalidate", GRID, out_dir=disk / "grid")
    for words in (made, cells):
        assert Process(words, folder / "log").wait() == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    run = {"run": disk / "run"}
    for words, code in (
        (command("infer", run, out=out / "a.nc"), 0),
        (command("evaluate", run), 0),
        (command("evaluate", run, out=out / "a.json"), 0),
        (command("infer", run), 2),
        (command("infer", run, out=disk / "a.nc"), 2),
        (command("evaluate", run, out=disk / "a.json"), 2),
        (command("audit", run), 2),
        ([*made, "--resume"], 2),
        ([*made, "--overwrite"], 2),
        (command("fit", short, run_dir=disk / "other"), 2),
        (cells, 2),
    ):
        process = Process(words, folder / "log")
        found = process.wait()
        expected = "as it should" if found == code else f"NOT {code}: {process.told()[-200:]}"
        outcome[f"{words[0]}: {judged(process, found)}, {expected}"] += 1
    subprocess.run(["umount", str(disk)], check=True)
    return outcome


# --- torn files ----------------------------------------------------------------------------------


def torn_files(folder: Path) -> Counter[str]:
    """Cut each file of a run and of a grid at every 4 kB and a few odd places, and use it."""
    outcome: Counter[str] = Counter()
    whole, copy, out = folder / "whole", folder / "copy", folder / "out.nc"
    short = {**FIT, "learner.trainer.max_epochs": 3, "learner.figures_every": 0,
             "model.generator_dim": 8}  # fmt: skip
    for words in (command("fit", short, run_dir=whole), command("infer", {"run": whole})):
        assert _called(words)[0] == 0
    recording = folder / "recording"
    from seqvae.data.sources import Lorenz, write_hdf5, write_npz

    made = Lorenz(num_trials=60, num_val=20, num_time_bins=30, num_neurons=12, num_heldout=3).load()
    write_hdf5(made, recording.with_suffix(".h5"))
    write_npz(made, recording.with_suffix(".npz"))
    uses = {
        "last.ckpt": command("fit", short, run_dir=copy, resume=True),
        "weights.pt": command("infer", {"run": copy, "out": out, "num_samples": 2}),
        "config.yaml": command("infer", {"run": copy, "out": out, "num_samples": 2}),
        "provenance.json": command("infer", {"run": copy, "out": out, "num_samples": 2}),
        "history.csv": command("evaluate", {"run": copy, "num_samples": 2}),
        "recording.h5": command("check", {"data.source.path": copy / "recording.h5"}),
        "recording.npz": command("check", {"data.source.path": copy / "recording.npz"}),
    }
    for name, words in uses.items():
        source = folder / name if name.startswith("recording") else whole / name
        content = source.read_bytes()
        places = {*range(0, len(content), 4096), 1, 7, 100, len(content) // 2, len(content) - 1,
                  len(content) - 30}  # fmt: skip
        for place in sorted(place for place in places if 0 <= place < len(content)):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(whole, copy)
            (copy / name).write_bytes(content[:place])
            code, told = _called(words)
            what = {0: "done all the same", 2: "refused in a sentence"}.get(code, f"EXIT {code}")
            lines = [line for line in told.splitlines() if line.startswith("seqvae ")]
            if "Traceback" in told or (code == 2 and len(lines) != 1):
                what = f"TRACEBACK OR MORE: {told[-300:]}"
            outcome[f"{name}: {what}"] += 1
    return outcome


def _called(words: list[str]) -> tuple[int, str]:
    told = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(told):
        return cli.main(words), told.getvalue()


# --- two at once ---------------------------------------------------------------------------------


def two_at_once(number: int, folder: Path) -> Counter[str]:
    """Start two commands on one folder; one goes through, the other says why it does not."""
    outcome: Counter[str] = Counter()
    short = {**FIT, "learner.trainer.max_epochs": 10}
    for verb, settings, where in (("fit", short, "run_dir"), ("crossvalidate", GRID, "out_dir")):
        for trial in range(number):
            words = command(verb, settings, **{where: folder / f"{verb}-{trial}"})
            pair = [Process(words, folder / f"log-{place}") for place in range(2)]
            codes = [process.wait() for process in pair]
            outcome[f"{verb}: exit codes {sorted(codes)}"] += 1
            for process, code in zip(pair, codes, strict=True):
                if code == 2:
                    is_told = "is in use by process" in process.told()
                    outcome[f"{verb}: {'told by whom' if is_told else process.told()}"] += 1
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = ["fit", "grid", "worker", "disk", "torn", "lock"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--number", type=int, default=20, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if "disk" in given.parts and not os.environ.get("SEQVAE_FAULTS_MOUNTS"):
        # a namespace of one's own, in which small disks may be mounted
        os.environ["SEQVAE_FAULTS_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    chance = random.Random(given.seed)
    for part in given.parts:
        with tempfile.TemporaryDirectory(prefix="seqvae-faults-") as name:
            folder, began = Path(name), time.monotonic()

            def at_random(kind: str, how: int, *, folder: Path = folder) -> Counter[str]:
                place = folder / str(how)
                place.mkdir()
                return ended_at_random(kind, given.number, how, chance, place)

            found: dict[str, Counter[str]] = {}
            if part in ("fit", "grid"):
                found[f"SIGKILL in a {part}"] = at_random(part, signal.SIGKILL)
                found[f"SIGTERM in a {part}"] = at_random(part, signal.SIGTERM)
            elif part == "worker":
                found["SIGKILL of a worker"] = killed_workers(given.number, chance, folder)
            elif part == "disk":
                found["read-only folder"] = read_only(folder)
                found["full disk"] = full_disk(given.number, folder)
            elif part == "torn":
                found["torn files"] = torn_files(folder)
            else:
                found["two at once"] = two_at_once(given.number, folder)
            for fault, outcomes in found.items():
                print(f"{fault} ({time.monotonic() - began:.0f} s)")
                for what, count in sorted(outcomes.items()):
                    print(f"  {count:5d}  {what}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
