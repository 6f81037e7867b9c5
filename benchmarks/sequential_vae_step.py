"""The training step of the sequential VAE beside what else could do it; see README.md."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import linear_regression, median
from typing import Any, NamedTuple

from sizes import SIZES, Size
from worker import ENVIRONMENT, Block, Turns, Worker

TOLERANCE = {"loss": 1e-4, "gradients": 1e-3}  # of --check, relative
SCORE = 0.20  # co-bps, of --time-to-score
SLOPES = {
    "num_bins": (45, 90, 180, 360),
    "batch_size": (16, 32, 64, 128),
    "generator_dim": (50, 100, 200, 400),
}


# What is measured. Each imports its libraries in a process of its own; this one stays small.


def package(
    turns: Turns,
    size: Size,
    steps: int,
    *,
    recursion: str,
    compiled: bool = False,
    accelerator: str = "cpu",
) -> None:
    from torch_step import train

    train(turns, size, steps, recursion, compiled=compiled, accelerator=accelerator)


def jax(turns: Turns, size: Size, steps: int) -> None:
    from jax_step import measure

    measure(turns, size, steps)


def bound(turns: Turns, size: Size, steps: int) -> None:
    from gemm_bound import measure

    measure(turns, size)


def graph(turns: Turns, size: Size, steps: int) -> None:
    from torch_step import cuda_graph

    cuda_graph(turns, size, steps)


def inference(turns: Turns, size: Size, num_trials: int, num_samples: int, passes: int) -> None:
    from posterior_sampling import measure

    measure(turns, size, "fused", num_trials=num_trials, num_samples=num_samples, passes=passes)


def fits(turns: Turns, path: str, recursion: str) -> None:
    from time_to_score import measure

    measure(turns, path, recursion, score=SCORE)


Measure = Callable[[Turns, Size, int], None]
ON_CPU: dict[str, Measure] = {
    "fused": partial(package, recursion="fused"),
    "loop": partial(package, recursion="loop"),
    "compiled": partial(package, recursion="loop", compiled=True),
    "jax": jax,
    "bound": bound,
}
ON_GPU: dict[str, Measure] = {
    "cuda_fused": partial(package, recursion="fused", accelerator="gpu"),
    "cuda_loop": partial(package, recursion="loop", accelerator="gpu"),
    "cuda_graph": graph,
}
RATIOS = (("loop", "fused"), ("jax", "fused"), ("fused", "bound"), ("loop", "bound"),
          ("jax", "bound"))  # fmt: skip


class Result(NamedTuple):
    """Milliseconds of a step, peak memory of training, and what else there is to say."""

    ms: float | None = None
    peak_mib: float | None = None
    note: str = ""


def in_turn(workers: Iterable[Worker], times: int) -> None:
    """Let each worker measure, one after the other, ``times`` times."""
    workers = list(workers)
    for _ in range(times):
        for worker in workers:
            worker.take_turn()


def compare(
    size: Size, variants: dict[str, Measure], options: argparse.Namespace
) -> dict[str, Result]:
    """Measure the steps of the variants in alternating blocks; medians over the blocks."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(measure, size, options.steps, limit=options.limit))
            for name, measure in variants.items()
        }
        in_turn(workers.values(), options.blocks)
        return {name: summarized(worker) for name, worker in workers.items()}


def summarized(worker: Worker) -> Result:
    """Take the medians over the blocks."""
    if worker.reason is not None:
        return Result(note=f"not measured: {worker.reason}")
    found: list[Block] = worker.found
    threads = median(block.threads for block in found)
    notes = [found[-1].note, f"{threads:.1f} threads" if threads > 1.1 else ""]
    seconds = median(block.seconds for block in found)
    return Result(1e3 * seconds, found[-1].peak_mib, ", ".join(filter(None, notes)))


def ratio(one: float | None, other: float | None) -> float | None:
    """Divide, where both are known."""
    return None if one is None or not other else one / other


def cell(value: float | None, width: int, digits: int = 1) -> str:
    """Write a number, or a dash where there is none."""
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def machine() -> str:
    """Say where figures come from: the CPU, and the release of torch."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, torch {version('torch')}"


def steps(options: argparse.Namespace) -> None:
    """Print a row of the table, or a line of JSON, for each size."""
    every = ON_CPU | ON_GPU
    there = ON_CPU | (ON_GPU if shutil.which("nvidia-smi") else {})
    variants = {name: every[name] for name in options.variants or there}
    if not options.json:
        print(machine())
        columns = [f"{name:>9}" for name in ON_CPU]
        columns += [f"{'/'.join(pair):>12}" for pair in RATIOS]
        print(f"{'ms a step':<11}{''.join(columns)}   MiB: fused    loop")
    for size in options.sizes:
        results = compare(SIZES[size], variants, options)
        print(as_json(size, results) if options.json else as_row(size, results), flush=True)


def as_row(size: str, results: dict[str, Result]) -> str:
    """One row of the table, and below it the GPU and the notes."""
    ms = {name: result.ms for name, result in results.items()}
    peaks = {name: result.peak_mib for name, result in results.items()}
    cells = [cell(ms.get(name), 9) for name in ON_CPU]
    cells += [cell(ratio(ms.get(one), ms.get(other)), 12, 2) for one, other in RATIOS]
    cells += [cell(peaks.get("fused"), 13, 0), cell(peaks.get("loop"), 8, 0)]
    below = [f"{name}: {cell(ms[name], 0)} ms" for name in ON_GPU if ms.get(name) is not None]
    below += [f"{name}: {result.note}" for name, result in results.items() if result.note]
    return "\n    ".join([f"{size:<11}{''.join(cells)}", *below])


def as_json(size: str, results: dict[str, Result]) -> str:
    """One object: milliseconds and MiB, null where not measured."""
    known = dict.fromkeys((*ON_CPU, *ON_GPU), Result()) | results
    record: dict[str, Any] = {"name": size, "machine": machine()}
    record |= {f"{name}_ms": result.ms for name, result in known.items()}
    record |= {"peak_mib": known["fused"].peak_mib, "loop_peak_mib": known["loop"].peak_mib}
    record["notes"] = {name: result.note for name, result in results.items() if result.note}
    return json.dumps(record)


def power(sizes: Sequence[float], ms: Sequence[float | None]) -> float | None:
    """Fit ms = c size^p by least squares of the logarithms; None if one is not known."""
    known = [time for time in ms if time is not None]
    if len(known) < len(ms):
        return None
    return linear_regression([math.log(s) for s in sizes], [math.log(t) for t in known]).slope


def slopes(options: argparse.Namespace) -> None:
    """Print how the step grows with bins, batch and generator: the exponent of a power law."""
    variants = {name: ON_CPU[name] for name in ("fused", "loop")}
    for field, values in SLOPES.items():
        found: dict[str, list[float | None]] = {name: [] for name in variants}
        for value in values:
            size = replace(SIZES["small"], **{field: value})
            size = replace(size, num_encoded=size.num_bins * 7 // 9)
            for name, result in compare(size, variants, options).items():
                found[name].append(result.ms)
        for name, ms in found.items():
            slope = power(values, ms)
            if options.json:
                record = {"name": f"slope {field}", "variant": name, "values": values}
                print(json.dumps({**record, "ms": ms, "slope": slope}), flush=True)
            else:
                cells = "".join(f"{v:>6}:{cell(m, 7)}" for v, m in zip(values, ms, strict=True))
                print(f"{field:<14}{name:<6}{cells} ms   slope {cell(slope, 0, 2)}", flush=True)


def check(options: argparse.Namespace) -> None:
    """Compare losses and gradients of JAX with the package's; exit 1 if they differ."""
    os.environ.update(ENVIRONMENT)
    try:
        from jax_step import differences
    except ImportError as error:
        sys.exit(f"{error}; pip install -e '.[bench]'")

    agree = True
    for size in options.sizes:
        for recursion in ("fused", "loop"):
            found = differences(SIZES[size], recursion)
            agree &= all(found[name] <= limit for name, limit in TOLERANCE.items())
            told = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
            print(f"{size:<11}{recursion:<6} relative difference to JAX: {told}", flush=True)
    sys.exit(0 if agree else 1)


def devices(options: argparse.Namespace) -> None:
    """Print how far each recursion, on the GPU if there is one, is from the loop on the CPU."""
    from torch_step import differences

    device = "cuda" if shutil.which("nvidia-smi") else "cpu"
    for size in options.sizes:
        for recursion in ("fused", "loop"):
            found = differences(SIZES[size], recursion, device)
            told = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
            print(
                f"{size:<11}{recursion:<6} on {device}, to the loop on the CPU: {told}", flush=True
            )


def sample_posteriors(options: argparse.Namespace) -> None:
    """Print seconds of 50 samples of 1000 trials, together and one by one, and peaks of memory."""
    for name in options.sizes:
        # trials, samples of a pass, passes
        kinds = [(1000, 50, 1), (1000, 1, 50), (250, 50, 1), (500, 50, 1)]
        with ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(inference, SIZES[name], *kind, limit=options.limit))
                for kind in kinds
            ]
            in_turn(workers[:2], options.blocks)
            in_turn(workers[2:], 1)
        failed = [worker.reason for worker in workers if worker.reason is not None]
        if failed:
            print(f"{name}: not measured: {failed[0]}", file=sys.stderr)
            continue
        together, one_by_one = (median(b.seconds for b in w.found) for w in workers[:2])
        peaks = {kinds[i][0]: workers[i].found[0].peak_mib for i in (2, 3, 0)}
        if options.json:
            record = {"name": f"inference {name}", "together_s": together}
            print(json.dumps({**record, "one_by_one_s": one_by_one, "peak_mib": peaks}))
        else:
            print(f"{name}: 50 samples of 1000 trials {together:.1f} s, as 50 passes "
                  f"{one_by_one:.1f} s, ratio {one_by_one / together:.2f}; peak "
                  + ", ".join(f"{peak:.0f} MiB ({n} trials)" for n, peak in peaks.items()),
                  flush=True)  # fmt: skip


def times_to_score(options: argparse.Namespace) -> None:
    """Print the seconds of training up to the score for each seed, fused and loop in turn."""
    with ExitStack() as stack:
        workers = {
            recursion: stack.enter_context(
                Worker(fits, options.time_to_score, recursion, limit=3600.0)
            )
            for recursion in ("fused", "loop")
        }
        in_turn(workers.values(), options.blocks)
    for recursion, worker in workers.items():
        if worker.reason is not None:
            print(f"{recursion}: not measured: {worker.reason}", file=sys.stderr)
        for seed, found in enumerate(worker.found):
            record = {"name": "time to score", "recursion": recursion, "seed": seed}
            record |= found._asdict() if found is not None else {"seconds": None}
            print(json.dumps(record) if options.json else
                  ", ".join(f"{name} {value}" for name, value in record.items()))  # fmt: skip


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "maze"],
                        help="see README.md")  # fmt: skip
    parser.add_argument("--variants", nargs="+", choices=[*ON_CPU, *ON_GPU], help="default: all")
    parser.add_argument("--blocks", type=int, default=7, help="of each variant, alternating")
    parser.add_argument("--steps", type=int, default=10, help="that count, of each block")
    parser.add_argument("--limit", type=float, default=300.0,
                        help="seconds that a compilation or a block may take")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one object a line")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--check", action="store_true",
                       help="instead: do JAX and the package compute the same?")  # fmt: skip
    other.add_argument("--devices", action="store_true",
                       help="instead: how far is the GPU from the CPU?")  # fmt: skip
    other.add_argument("--slopes", action="store_true",
                       help="instead: growth with bins, batch and generator")  # fmt: skip
    other.add_argument("--inference", action="store_true",
                       help="instead: posterior samples, together and one by one")  # fmt: skip
    other.add_argument("--time-to-score", metavar="FILE",
                       help=f"instead: fit configs/maze_svae.yaml to FILE until co-bps > {SCORE}, "
                       "a seed for each of --blocks")  # fmt: skip
    options = parser.parse_args()
    if min(options.blocks, options.steps) < 1:
        parser.error("--blocks and --steps must be at least 1")
    if options.check:
        check(options)
    elif options.devices:
        devices(options)
    elif options.slopes:
        slopes(options)
    elif options.inference:
        sample_posteriors(options)
    elif options.time_to_score:
        times_to_score(options)
    else:
        steps(options)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
