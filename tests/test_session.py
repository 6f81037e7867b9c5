"""A batch may hold some of the neurons alone, and tells which."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from pytorch_lightning.plugins import DoublePrecision
from torch import Tensor

from seqvae.analysis.audit.joint import what_is_seen
from seqvae.compute import noise
from seqvae.data import CoordinatedDropout
from seqvae.data.masking import speckle
from seqvae.types import Batch, DataSpec
from toy import toy_batch, toy_spec

SPEC = toy_spec(heldout=(1,))
WIDE = DataSpec((0, 2, 3, 4, 5, 6, 7), 8, 0, 8, 8, 0.02)
SOME = (0, 1, 2, 3, 4, 5)


def batch_of_some() -> Batch:
    return replace(toy_batch(SPEC), neurons=SOME)


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.to(torch.float32),
        lambda batch: batch[1:3],
        lambda batch: batch[torch.tensor([2, 0])],
        lambda batch: move_data_to_device(batch, torch.device("cpu")),
        lambda batch: DoublePrecision().convert_input(batch),
        lambda batch: speckle(batch, WIDE if batch.neurons else SPEC, 0.5, seed=0),
        lambda batch: what_is_seen(batch[[1]], SPEC.heldin),
    ],
    ids=["to", "slice", "index", "lightning", "precision", "speckle", "audit"],
)
def test_a_batch_keeps_its_neurons(change) -> None:
    assert change(batch_of_some()).neurons == SOME
    assert change(toy_batch(SPEC)).neurons is None


def test_coordinated_dropout_keeps_the_neurons() -> None:
    batch = batch_of_some()
    with noise.keyed(0), noise.of_trials(batch.trial):
        assert CoordinatedDropout(0.3, 0.1)(batch, SPEC.heldin).neurons == SOME


def test_every_other_field_of_a_batch_is_a_tensor_that_is_moved_and_selected() -> None:
    part = toy_batch(SPEC)[1:3]
    tensors = [getattr(part, f.name) for f in fields(part) if f.name != "neurons"]
    assert all(isinstance(tensor, Tensor) and len(tensor) == 2 for tensor in tensors)


def test_the_facts_of_some_neurons_are_in_their_order() -> None:
    assert WIDE.among((1, 3, 7)).heldin == (1, 2)
    assert WIDE.among((1, 3, 7)).num_neurons == 3
    assert WIDE.heldin_among((7, 1, 3)).tolist() == [6, 2]
