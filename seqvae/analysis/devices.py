"""Work shared out over devices: chunks of trials, to replicas of a model, answered in order."""

from __future__ import annotations

import copy
import queue
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int

from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.models.latent_variable import LatentVariableModel

TrialIndices = Int[np.ndarray, " _"]
Answer = TypeVar("Answer")

REFUSED = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "ALLOC_FAILED",  # of cuBLAS, cuDNN and their like
)
"""What allocators say in a plain RuntimeError where memory is all they lack."""


def chosen_devices(model: Model, devices: str | int = "auto") -> list[torch.device]:
    """Return the devices that a model is to infer on.

    Args:
        model: a model.
        devices: "auto": all GPUs there are for a model that is learned by gradients, else the CPU;
            "cpu"; or how many GPUs.

    Raises:
        InputError: for more GPUs than there are, or another word.
    """
    num_gpus = torch.cuda.device_count()
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    if devices == "auto":
        by_gradients = any(isinstance(part, LatentVariableModel) for part in model.modules())
        devices = num_gpus if by_gradients else 0
        if devices == 0:
            return [model.null_counts.device]
    if devices == "cpu":
        return [torch.device("cpu")]
    if isinstance(devices, str):
        raise InputError(f"devices must be 'auto', 'cpu' or a number of GPUs, got {devices!r}")
    if not 1 <= devices <= num_gpus:
        there = {0: "there is no GPU", 1: "there is 1 GPU"}
        raise InputError(
            f"devices is {devices}, but {there.get(num_gpus, f'there are {num_gpus} GPUs')}; use "
            f"{'devices cpu' if num_gpus == 0 else f'1 to {num_gpus}'}"
        )
    return [torch.device("cuda", index) for index in range(devices)]


def replicas(model: Model, devices: Sequence[torch.device]) -> list[Model]:
    """Return the model itself, where it is on a device, and copies of it on all others."""
    models: list[Model] = []
    for device in devices:
        is_there = device == model.null_counts.device and not any(m is model for m in models)
        models.append(model if is_there else copy.deepcopy(model).to(device))
    return models


def in_order(
    chunks: Sequence[TrialIndices], workers: Sequence[Callable[[TrialIndices], Answer]]
) -> Generator[Answer, None, None]:
    """Yield what workers answer to chunks, in the order of the chunks.

    One worker does them one by one. Several have a thread each and take the next chunk when they
    come free; no more than two a worker are begun or wait to be asked for, so memory is bounded.
    Whatever one of them raises is raised where its answer was due, after the chunks that are being
    worked on have ended.

    Args:
        chunks: what to answer.
        workers: what answers; each works on one chunk at a time.
    """
    if len(workers) == 1:
        yield from map(workers[0], chunks)
        return
    free: queue.SimpleQueue[Callable[[TrialIndices], Answer]] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(chunk: TrialIndices) -> Answer:
        worker = free.get()
        try:
            return worker(chunk)
        finally:
            free.put(worker)

    pending: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            for chunk in chunks:
                pending.append(pool.submit(work, chunk))
                if len(pending) == 2 * len(workers):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class Halving(Generic[Answer]):
    """Answers trials as many at a time as memory holds: when it is out, with half as many.

    Args:
        answer: what it costs memory to do.
        cure: what to do if not even one trial fits.
    """

    def __init__(self, answer: Callable[[TrialIndices], Answer], *, cure: str) -> None:
        self.answer = answer
        self.cure = cure
        self.most: int | None = None

    def __call__(self, trials: TrialIndices) -> list[Answer]:
        """Answer the trials, in one piece or several.

        Raises:
            InputError: if one trial is too many.
        """
        answers: list[Answer] = []
        while len(trials):
            size = len(trials) if self.most is None else min(self.most, len(trials))
            try:
                answers.append(self.answer(trials[:size]))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                trials = trials[size:]
                continue
            # outside of the except clause, so that nothing holds what was allocated
            if size == 1:
                raise InputError(f"one trial does not fit into memory; {self.cure}")
            if self.most is None:
                warnings.warn(
                    f"{size} trials at a time do not fit into memory; fewer are taken, with the "
                    "same results",
                    stacklevel=2,
                )
            self.most = -(-size // 2)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return answers


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is all that lacks."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in REFUSED)
