"""The rule of noise: a draw depends on the seed, the trial and the sample, on no other trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.testing import assert_close

from seqvae.compute import noise
from seqvae.types import Batch

Answer = Callable[[Batch, int], Sequence[Tensor]]
"""(batch, number of samples) -> tensors with the axes (sample, trial, ...)."""


def assert_noise_depends_on_the_trial_alone(answer: Answer, batch: Batch) -> None:
    """Each trial alone, with fewer samples, is answered as in the batch, in training mode.

    Fails for a part that draws by torch's own generator, as ``torch.nn.Dropout`` does.
    """

    def ask(trials: Batch, num_samples: int, seed: int = 7) -> Sequence[Tensor]:
        with noise.keyed(seed), noise.of_trials(trials.trial):
            return answer(trials, num_samples)

    state = torch.get_rng_state()
    together = ask(batch, 3)
    assert torch.equal(torch.get_rng_state(), state), "drawn by torch's own generator"
    for row in range(len(batch)):
        for alone, expected in zip(ask(batch[[row]], 2), together, strict=True):
            assert_close(alone[:, 0], expected[:2, row], rtol=1e-10, atol=1e-10)
