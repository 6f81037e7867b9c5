"""Memory, time and held-out scores of one model of up to hundreds of sessions.

    python benchmarks/many_sessions.py --folder sessions                   # 1, 10, 50, 200 sessions
    python benchmarks/many_sessions.py --folder sessions --sessions 50 --devices 1 2
    python benchmarks/many_sessions.py --folder sessions --steps 1500 --sessions 1 3 10 30
    python benchmarks/many_sessions.py --folder sessions --steps 1500 --sessions 20 --per_batch 1 16

Each session is a file of spikes (an .npz of times, neurons and trials), of a Lorenz system that all
share: 40 neurons of its own (8 held out), 40 trials of 50 bins of 10 ms, 15 spikes/s, over eight
initial states. Each fit has a process of its own. Printed are its peak memory, that before the
fit, and the seconds that learning and validation take for each 1,000 trials.

With ``--steps`` every fit takes so many steps of the optimiser, and printed are bits per spike of
held-out neurons in 24 other trials of each session, of the first session alone (which every fit
has) and of all. ``--per_batch`` compares batches of trials of few sessions with mixed ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, Trainer

import seqvae
from seqvae import GradientLearner, NeuralData, Run
from seqvae.data.sources import Lorenz, Npz, Sessions
from seqvae.encoders import LinearReadIn
from seqvae.learning.gradient import quiet
from seqvae.models import SequentialVAE

NEURONS, BINS, HELD_OUT, SCORED = 40, 50, 8, 24
KEYS = {name: name for name in ("spike_times", "intervals", "bin_width", "condition", "split",
                                "heldin")}  # fmt: skip
KEYS |= {"spike_neurons": "neuron_ids", "spike_trials": "trial_ids"}


def simulation(number: int, trials: int, scored: int) -> Lorenz:
    """Return a session: a fifth of the trials validates, others beside them are scored."""
    return Lorenz(
        num_trials=trials + scored,
        num_val=trials // 5,
        num_test=scored,
        num_time_bins=BINS,
        num_neurons=NEURONS,
        num_heldout=HELD_OUT,
        mean_count=0.15,
        seed=number,
        num_conditions=8,
    )


def session(folder: Path, number: int, trials: int, scored: int) -> Npz:
    """Write the spikes of a session, once, and return what reads them."""
    file = folder / f"{number:03d}_{trials}_{scored}.npz"
    if not file.exists():
        recording = simulation(number, trials, scored).load()
        counts = recording.read().astype(int)
        places = np.nonzero(counts)
        trial, bins, neuron = (np.repeat(place, counts[places]) for place in places)
        width = recording.bin_width
        assert width is not None
        within = np.random.default_rng(number).uniform(0.1, 0.9, len(bins))
        np.savez(
            file,
            spike_times=(bins + within) * width,
            neuron_ids=neuron.astype(np.int64),
            trial_ids=trial,
            intervals=np.tile([0.0, BINS * width], (len(counts), 1)),
            bin_width=width,
            condition=recording.condition,
            split=recording.split,
            heldin=recording.heldin,
        )
    return Npz(file, keys=KEYS)


class Clock(Callback):
    """Notes the seconds that learning and validation take in each epoch."""

    def __init__(self) -> None:
        self.learning: list[float] = []
        self.validation: list[float] = []
        self._began = 0.0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin with the first batch."""
        if batch_idx == 0:
            self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End with the last batch."""
        if trainer.is_last_batch:
            self.learning.append(time.perf_counter() - self._began)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin."""
        self._validates = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """End."""
        if not trainer.sanity_checking:
            self.validation.append(time.perf_counter() - self._validates)


def peak() -> float:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Fit the sessions for some epochs."""
    folder = Path(options.folder)
    (number,), (devices,), (per_batch,) = options.sessions, options.devices, options.per_batch
    scored = SCORED if options.steps else 0
    first = options.first * number  # another data set
    sources = [session(folder, n + first, options.trials, scored) for n in range(number)]
    before, clock, start = peak(), Clock(), time.perf_counter()
    data = NeuralData(Sessions(sources), batch_size=16, sessions_per_batch=per_batch)
    data.setup()
    loaded, load = peak(), time.perf_counter() - start
    trainer = partial(
        Trainer,
        max_epochs=-1 if options.steps else options.epochs,
        max_steps=options.steps or -1,
        check_val_every_n_epoch=None if options.steps else 1,
        val_check_interval=100 if options.steps else 1.0,
        accelerator="cpu",
        devices=devices,
        callbacks=[clock],
        logger=False,
    )
    learner = GradientLearner(trainer, patience=None, progress=False)
    start = time.perf_counter()
    run = seqvae.fit(data, partial(SequentialVAE, read_in=LinearReadIn), learner, in_memory=True)
    numbers = data.num_trials
    found = {
        "sessions": number,
        "trials": options.trials,
        "devices": devices,
        "per_batch": per_batch,
        "import_mb": before,
        "loaded_mb": loaded,
        "peak_mb": peak(),
        "load_s": load,
        "fit_s": time.perf_counter() - start,
    }
    if clock.learning and not options.steps:  # several processes have clocks of their own
        found["learning_s_per_1000"] = 1e3 * float(np.min(clock.learning)) / numbers["train"]
        found["validation_s_per_1000"] = 1e3 * float(np.min(clock.validation)) / numbers["val"]
    if options.steps:
        parts = {"all": data}
        if number > 1:
            parts["first"] = data.of_session(data.sessions[0])
        for name, part in parts.items():
            found[f"co_bps_{name}"] = tested(run, part)
    return found


def tested(run: Run, data: NeuralData) -> float:
    """Return bits per spike of held-out neurons in the trials that no model saw."""
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    with quiet():
        (scores,) = trainer.test(run.model(), data, verbose=False)
    return scores["test/co_bps"]


def main() -> None:
    """Do what is asked for, each fit in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", required=True)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 50, 200])
    parser.add_argument("--trials", type=int, default=40, help="of a session")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="of the optimiser, in place of epochs")
    parser.add_argument("--devices", type=int, nargs="+", default=[1])
    parser.add_argument("--per_batch", type=int, nargs="+", default=[8], help="sessions")
    parser.add_argument("--first", type=int, default=0, help="number of the data set")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    options = parser.parse_args()
    Path(options.folder).mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    if options.here:
        print(json.dumps(measured(options)), flush=True)
        return
    for number, devices, per_batch in product(options.sessions, options.devices, options.per_batch):
        command = [sys.executable, "-W", "ignore", __file__, "--here", "--folder", options.folder]
        for name in ("trials", "epochs", "steps", "first"):
            command += [f"--{name}", str(getattr(options, name))]
        command += [f"--sessions={number}", f"--devices={devices}", f"--per_batch={per_batch}"]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
