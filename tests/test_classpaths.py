from __future__ import annotations

import sys

import pytest
import torch

from seqvae.config.class_paths import check_trusted, class_path, find_class
from seqvae.config.signatures import Part
from seqvae.errors import InputError
from seqvae.observations import Observation, Poisson

HOSTILE = [
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "torch.nn.Linear",
    "torch.optim",
    "torch.optim.adamw.cast",
    "torch.optim.optimizer.OrderedDict",
    "seqvae.errors.get_close_matches",
    "seqvae.errors.os.system",
    "seqvae.storage.files.os.system",
    "seqvae.storage.files.Path",
    "seqvae..files.Path",
    "seqvae.",
    "seqvae_evil.Thing",
    "pytorch_lightning.trainer.trainer.os.system",
    "planted.Thing",
    "",
    None,
    ["seqvae.models.VAE"],
]


def test_class_path_goes_through_the_package_that_exports():
    assert class_path(Poisson) == "seqvae.observations.Poisson"
    assert class_path(torch.optim.AdamW) == "torch.optim.AdamW"
    assert class_path(int) == "builtins.int"


def test_bare_name_finds_a_member_of_the_family():
    assert find_class("Poisson", [Part(Observation)], "model.observation", False) is Poisson


def test_trusted_classes_pass():
    check_trusted({"model": {"class_path": "seqvae.models.VAE", "init_args": {"latent_dim": 2}}})
    check_trusted({"callbacks": [{"class_path": "pytorch_lightning.callbacks.EarlyStopping"}]})
    check_trusted({"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau"})


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_class_paths_are_refused(path):
    with pytest.raises(InputError):
        check_trusted({"init_args": [{"deep": {"class_path": path}}]})
    with pytest.raises(InputError):
        find_class(path, [Part(Observation)], "model.observation", False)


def test_nothing_is_imported_before_all_paths_are_checked(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    tree = {"a": {"class_path": "seqvae.plotting.Nothing"}, "b": {"class_path": "planted.Thing"}}
    with pytest.raises(InputError, match="planted"):
        check_trusted(tree)
    assert "planted" not in sys.modules


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("Poison", "'Poisson'"),
        ("seqvae.observations.Poison", "'seqvae.observations.Poisson'"),
        ("seqvae.observation.Poisson", "'seqvae.observations.Poisson'"),
        ("Observation", "valid names|did you mean"),
    ],
)
def test_misspelled_class_names_the_nearest(path, hint):
    with pytest.raises(InputError, match=hint):
        find_class(path, [Part(Observation)], "model.observation", True)


def test_module_that_fails_on_import_is_told_in_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="no_such_package"):
        find_class("half_written.Thing", [Part(Observation)], "model.observation", True)
