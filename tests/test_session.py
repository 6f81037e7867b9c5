"""A batch holds trials of one session, and what differs between sessions is asked at one door."""

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
from seqvae.errors import InputError
from seqvae.models import VAE, LinearDynamics
from seqvae.types import Batch
from tiny import tiny_data
from toy import toy_batch, toy_spec

SPEC = toy_spec(heldout=(1,))


def batch_of_session(index: int) -> Batch:
    return replace(toy_batch(SPEC), session=index)


@pytest.mark.parametrize(
    "change",
    [
        lambda batch: batch.to(torch.float32),
        lambda batch: batch[1:3],
        lambda batch: batch[torch.tensor([2, 0])],
        lambda batch: move_data_to_device(batch, torch.device("cpu")),
        lambda batch: DoublePrecision().convert_input(batch),
        lambda batch: speckle(batch, SPEC.heldin, 0.5, seed=0),
        lambda batch: what_is_seen(batch[[1]], SPEC.heldin),
    ],
    ids=["to", "slice", "index", "lightning", "precision", "speckle", "audit"],
)
def test_a_batch_keeps_its_session(change) -> None:
    assert change(batch_of_session(3)).session == 3
    assert change(toy_batch(SPEC)).session == 0


def test_coordinated_dropout_keeps_the_session() -> None:
    batch = batch_of_session(3)
    with noise.keyed(0), noise.of_trials(batch.trial):
        assert CoordinatedDropout(0.3, 0.1)(batch, SPEC.heldin).session == 3


def test_every_other_field_of_a_batch_is_a_tensor_that_is_moved_and_selected() -> None:
    part = toy_batch(SPEC)[1:3]
    tensors = [getattr(part, f.name) for f in fields(part) if f.name != "session"]
    assert all(isinstance(tensor, Tensor) and len(tensor) == 2 for tensor in tensors)


def test_the_door_shows_what_the_model_holds() -> None:
    data = tiny_data()
    data.setup()
    model = VAE(data.spec, latent_dim=2)
    model.initialize(data)
    session = model.session()
    assert session.spec is model.spec
    assert session.observation is model.observation
    for name in ("null_counts", "observed_mean", "observed_scale"):
        assert getattr(session, name) is getattr(model, name)
    assert torch.equal(session.null_counts, data.session().train_mean)


def test_a_model_that_reads_the_data_as_they_are_has_no_mean_and_unit() -> None:
    session = LinearDynamics(SPEC).session()
    assert (session.observed_mean, session.observed_scale) == (0.0, 1.0)


def test_data_refuse_a_session_that_they_do_not_hold() -> None:
    with pytest.raises(InputError, match="session 1: the data hold session 0 alone"):
        tiny_data().session(1)
