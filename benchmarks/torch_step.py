"""The package's own training step, timed while Lightning runs it; and one as a CUDA graph."""

from __future__ import annotations

import time
from functools import partial

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from sizes import Size, make_data, make_model
from torch import Tensor
from worker import WARM_UP, Stopwatch, Turns, forget_peak, peak_mib, repeat

from seqvae import GradientLearner
from seqvae.compute import noise
from seqvae.objectives import bound
from seqvae.types import Batch


class Clock(Callback):
    """Times the steps of a fit from batch start to batch start; halts the fit between its turns.

    Steps that an epoch's end lies between are left out.

    Args:
        turns: when to measure.
        steps: of a block, after the warm-up.
    """

    def __init__(self, turns: Turns, steps: int) -> None:
        self.turns = turns
        self.steps = steps
        self._prepared = False
        self._start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the memory before the first step."""
        self._held = forget_peak()
        self._watch = Stopwatch()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stop the watch of the last step and start that of the next."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        if batch_idx > 0:
            self._watch.seconds.append(time.perf_counter() - self._start)
        if not self._prepared and self._watch.seconds:
            self._prepared = True
            self.turns.wait()
            self._watch = Stopwatch()
        elif len(self._watch.seconds) == WARM_UP + self.steps:
            self.turns.wait(self._watch.block(peak_mib=peak_mib() - self._held))
            self._watch = Stopwatch()
        self._start = time.perf_counter()


def train(
    turns: Turns,
    size: Size,
    steps: int,
    recursion: str,
    *,
    compiled: bool = False,
    accelerator: str = "cpu",
) -> None:
    """Fit the model as ``GradientLearner`` does, until the measuring ends.

    Args:
        turns: when to measure.
        size: of data and model.
        steps: of a block.
        recursion: "fused" or "loop".
        compiled: give the decoder to ``torch.compile``.
        accelerator: "cpu" or "gpu".
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = make_data(size)
    model = make_model(size, data.spec, recursion=recursion)
    model.initialize(data)
    if compiled:
        model.decoder.draw = torch.compiler.disable(model.decoder.draw)  # integers of 64 bits
        model.decoder.compile()
    trainer = partial(
        Trainer, max_epochs=-1, accelerator=accelerator, callbacks=[Clock(turns, steps)]
    )
    GradientLearner(trainer, progress=False).learn(model, data)


def differences(size: Size, recursion: str, device: str) -> dict[str, float]:
    """How far a device is from the readable loop on the CPU: same weights, batch and noise.

    The largest differences of an expected count and of a gradient, in units of the largest count
    and gradient, and that of the loss, relative.
    """
    data = make_data(size, num_trials=size.batch_size)
    told = []
    for kind, place in (("loop", "cpu"), (recursion, device)):
        torch.manual_seed(0)
        model = make_model(size, data.spec, recursion=kind)
        model.initialize(data)
        model.eval().to(place)
        batch = data.batch(list(range(size.batch_size))).to(place)
        with noise.keyed(0):
            output = model(batch)
        loss = -bound(output, batch).elbo().mean()
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        tensors = (loss.detach(), output.emission.mean.detach(), torch.cat(gradients))
        told.append([tensor.double().cpu() for tensor in tensors])
    names = ("loss", "rates", "gradients")
    return {
        name: float((own - other).abs().max() / own.abs().max())
        for name, own, other in zip(names, *told, strict=True)
    }


class _WholeTrials(Batch):
    """Trials of full length, their lengths on the host, so that no kernel is waited for."""

    @property
    def time_mask(self) -> Tensor:
        return self.target.new_ones(self.target.shape[:2], dtype=torch.bool)


def cuda_graph(turns: Turns, size: Size, steps: int) -> None:
    """Replay forward and backward of the loop as one CUDA graph (no clip, no optimiser)."""
    data = make_data(size)
    model = make_model(size, data.spec, recursion="loop").cuda()
    batch = data.batch(list(range(size.batch_size)))
    batch = _WholeTrials(**{**vars(batch.to("cuda")), "lengths": batch.lengths})

    def forward_backward() -> None:
        model.zero_grad(set_to_none=True)
        (-bound(model(batch), batch).elbo().mean()).backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # capture needs warm allocations on a stream of its own
        for _ in range(3):
            forward_backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward_backward()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    repeat(turns, replay, steps)
