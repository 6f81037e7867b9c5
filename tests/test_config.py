from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from seqvae.config import check_trusted, from_config, override, read_arguments, to_config
from seqvae.data import CoordinatedDropout, NeuralData
from seqvae.data.sources import HDF5, Arrays, Lorenz
from seqvae.errors import InputError
from seqvae.learning import EM, GradientLearner
from seqvae.models import VAE, LatentVariableModel, SequentialVAE
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial, Observation, Poisson
from seqvae.types import DataSpec

Model = Callable[[DataSpec], LatentVariableModel]
ObservationFactory = Callable[[int, int], Observation]


class Shifted(Poisson):
    def __init__(self, factor_dim: int, num_neurons: int, *, shift: float = 0.5) -> None:
        super().__init__(factor_dim, num_neurons)
        self.shift = shift


@dataclasses.dataclass(frozen=True)
class Forgetful:
    seen: dataclasses.InitVar[int] = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    size: int = 3


def verb(data: NeuralData, model: Model, learner: GradientLearner | None = None, *, seed: int = 0):
    return data, model, learner, seed


def through_yaml(tree: Any) -> Any:
    return yaml.safe_load(yaml.safe_dump(tree, sort_keys=False))


observations = st.one_of(
    st.sampled_from([Poisson, Bernoulli, NegativeBinomial, Gaussian]),
    st.floats(1e-6, 10).map(lambda std: partial(Gaussian, min_std=std)),
)
models = st.one_of(
    st.builds(
        lambda dim, observation, lr: partial(
            VAE,
            latent_dim=dim,
            observation=observation,
            optimizer=partial(torch.optim.AdamW, lr=lr),
        ),
        st.integers(1, 50),
        observations,
        st.floats(1e-8, 1),
    ),
    st.builds(
        lambda dim, observation, causal: partial(
            SequentialVAE, factor_dim=dim, observation=observation, causal=causal, schedule=None
        ),
        st.integers(1, 50),
        observations,
        st.booleans(),
    ),
)


@settings(max_examples=40, deadline=None)
@given(models)
def test_model_survives_the_round_trip_through_yaml(model):
    tree = through_yaml(to_config(model))
    again = from_config(tree, Model)
    assert again.func is model.func
    assert to_config(again) == tree
    for name, value in model.keywords.items():
        assert to_config(again.keywords[name]) == to_config(value)


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "source": st.builds(Lorenz, seed=st.integers(0, 9), mean_count=st.floats(0.01, 2)),
            "val_fraction": st.floats(0, 0.5),
            "heldout": st.none() | st.floats(0, 0.9) | st.lists(st.integers(0, 9), max_size=3),
            "coordinated_dropout": st.none() | st.builds(CoordinatedDropout, st.floats(0.1, 0.9)),
        }
    )
)
def test_data_survive_the_round_trip_through_yaml(arguments):
    data = NeuralData(**arguments)
    again = from_config(through_yaml(to_config(data)), NeuralData)
    assert isinstance(again, NeuralData)
    assert again.source == data.source
    assert again.heldout == data.heldout
    assert again.coordinated_dropout == data.coordinated_dropout


def test_defaults_are_written_out():
    tree = to_config(partial(VAE, latent_dim=3))
    assert tree["class_path"] == "seqvae.models.VAE"
    assert tree["init_args"]["latent_dim"] == 3
    assert "spec" not in tree["init_args"]
    assert tree["init_args"]["observation"]["class_path"] == "seqvae.observations.Poisson"
    assert tree["init_args"]["optimizer"]["init_args"]["betas"] == [0.9, 0.999]


def test_factory_reads_back_as_a_plain_partial_of_the_class():
    factory = from_config(to_config(partial(Gaussian, min_std=0.2)), ObservationFactory)
    assert isinstance(factory, partial)
    assert (factory.func, factory.args, factory.keywords) == (Gaussian, (), {"min_std": 0.2})
    assert from_config("Poisson", ObservationFactory) is Poisson
    assert factory(3, 4).min_std == 0.2


def test_scalars_paths_and_containers_are_plain():
    tree = to_config({"a": Path("x/y"), "b": (1, 2.5), "c": np.float64(0.5), "d": None, "e": True})
    assert tree == {"a": "x/y", "b": [1, 2.5], "c": 0.5, "d": None, "e": True}
    assert through_yaml(tree) == tree


def test_arrays_in_memory_are_written_as_null():
    data = NeuralData(Arrays(np.ones((4, 5, 3)), bin_width=0.02))
    assert to_config(data)["init_args"]["source"] is None


@pytest.mark.parametrize(
    "value",
    [lambda factor_dim, num_neurons: None, partial(lambda: 0), len, partial(VAE, 3), np.ones(3)],
)
def test_what_no_config_can_name_is_refused(value):
    with pytest.raises(InputError, match=r"^model\.observation: (use a class|an array)"):
        to_config(value, key="model.observation")


def test_class_inside_a_function_is_refused():
    class Local(Poisson):
        pass

    with pytest.raises(InputError, match="top level of a module"):
        to_config(Local)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (partial(GradientLearner, average_weights=None), "average_weights must be float, got None"),
        (partial(GradientLearner, patience="3"), "patience must be int or null, got '3'"),
        (partial(EM, max_iterations=2.0), "max_iterations must be int, got 2.0"),
        (partial(EM, ridge=math.nan), None),  # a number: its learner refuses it
        (partial(SequentialVAE, generator_dim="a"), "generator_dim must be int or null, got 'a'"),
        (partial(VAE, observation=5), "observation must be a class of Observation, got 5"),
        (partial(SequentialVAE, generator_dim=None, dropout=1), None),
    ],
)
def test_scalar_that_could_not_be_read_again_is_not_written(value, message):
    if message is None:
        to_config(value)
        return
    with pytest.raises(InputError, match=re.escape(message)):
        to_config(value)


def test_instance_that_hides_a_default_is_written_with_a_warning():
    with pytest.warns(UserWarning, match="seen"):
        assert to_config(Forgetful(seen=4))["init_args"] == {"seen": 3}


def test_slots_are_read_too():
    tree = to_config(from_config({"size": 5}, Slotted))
    assert tree["init_args"] == {"size": 5}


def test_lightning_parts_are_written_as_they_were_given():
    trainer = partial(Trainer, callbacks=[EarlyStopping("val/elbo", patience=7)], logger=False)
    tree = to_config(trainer)
    assert tree["init_args"]["callbacks"][0]["init_args"]["patience"] == 7
    tree["init_args"]["logger"] = {"class_path": "CSVLogger", "init_args": {"save_dir": "a"}}
    tree["init_args"]["callbacks"].append(
        {"class_path": "ModelCheckpoint", "init_args": {"save_last": True, "dirpath": "b"}}
    )
    again = from_config(through_yaml(tree), Callable[[], Trainer])
    stopping, checkpoint = again.keywords["callbacks"]
    assert isinstance(stopping, EarlyStopping)
    assert isinstance(checkpoint, ModelCheckpoint)
    assert isinstance(again.keywords["logger"], CSVLogger)
    written = to_config(again)["init_args"]
    assert written["logger"]["init_args"]["save_dir"] == "a"
    assert written["callbacks"][1]["init_args"]["dirpath"] == "b"
    assert from_config(through_yaml(to_config(again)), Callable[[], Trainer])


def test_arguments_alone_suffice_where_there_is_no_class_to_choose():
    data = from_config({"source": "Lorenz", "batch_size": 3}, NeuralData)
    assert (data.batch_size, data.source) == (3, Lorenz())


def test_outside_class_is_built_with_trust_only():
    tree = to_config(partial(Shifted, shift=2.0))
    assert tree["class_path"].endswith("test_config.Shifted")
    assert from_config(tree, ObservationFactory, trust=True).keywords == {"shift": 2.0}
    with pytest.raises(InputError, match="trust"):
        from_config(tree, ObservationFactory)


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"latent_dmi": 3}, "model.latent_dmi does not exist; did you mean 'latent_dim'"),
        ({"latent_dim": "x"}, "model.latent_dim must be int, got 'x'"),
        ({"latent_dim": [1]}, "model.latent_dim must be int, got \\[1\\]"),
        ({"spec": 3}, "model.spec does not exist"),
        ({"observation": "Poison"}, "model.observation: there is no class 'Poison'; .*'Poisson'"),
        ({"observation": 3}, "model.observation must be a class of Observation, got 3"),
        (
            {"observation": {"class_path": "seqvae.observations.Gaussian", "min_std": 1}},
            "model.observation.min_std must stand under model.observation.init_args",
        ),
        (
            {"observation": {"class_path": "Gaussian", "init_args": {"min_sd": 1}}},
            "model.observation.min_sd does not exist; did you mean 'min_std'",
        ),
        ({"observation": {"class_path": "Gaussian", "init_args": 3}}, "init_args must be a mapp"),
        ({"observation": {"class_path": 3}}, "model.observation"),
        ({"observation": {"init_args": {}}}, "model.observation has no class"),
        (
            {"observation": "seqvae.priors.StandardNormal"},
            "model.observation must be a class of Observation, got 'seqvae.priors.StandardNormal'",
        ),
        ({"optimizer": {"class_path": "AdamW", "init_args": {"lr": "q"}}}, "model.optimizer.lr mu"),
        ({"optimizer": {"class_path": "AdamV"}}, "there is no class 'AdamV'; did you mean 'Adam'"),
    ],
)
def test_mistake_is_told_with_full_key_and_nearest_name(tree, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        from_config(
            {"class_path": "seqvae.models.VAE", "init_args": tree}, Model, key="model", trust=True
        )
    assert "\n" not in str(caught.value)


def test_missing_argument_is_named():
    with pytest.raises(InputError, match=r"data\.source is required: .*HDF5"):
        from_config({}, NeuralData, key="data")


def test_values_refused_by_a_constructor_name_their_key():
    with pytest.raises(InputError, match="num_val"):
        from_config({"class_path": "Lorenz", "init_args": {"num_trials": 0}}, Lorenz, key="source")


HOSTILE = {"class_path": "planted.Thing", "init_args": {"x": 1}}


@pytest.mark.parametrize("hostile", [HOSTILE, "planted.Thing", [HOSTILE], ["planted.Thing"]])
@pytest.mark.parametrize(
    "place",
    [
        lambda x: x,
        lambda x: {"class_path": "VAE", "init_args": {"observation": x}},
        lambda x: {"class_path": "VAE", "init_args": {"latent_dim": x}},
        lambda x: {"class_path": "VAE", "init_args": {"objective": x}},
        lambda x: {
            "class_path": "VAE",
            "init_args": {"optimizer": {"class_path": "AdamW", "init_args": {"betas": [x, 0.9]}}},
        },
        lambda x: {
            "class_path": "VAE",
            "init_args": {"optimizer": {"class_path": "AdamW", "init_args": {"lr": x}}},
        },
    ],
)
def test_nothing_outside_is_imported_without_trust(hostile, place, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError):
        from_config(place(hostile), Model, key="model")
    assert "planted" not in sys.modules


def test_check_trusted_is_offered_here():
    with pytest.raises(InputError, match="os"):
        check_trusted({"class_path": "os.system"})


def overridden(tree: dict[str, Any], **flags: Any) -> dict[str, Any]:
    return functools.reduce(
        lambda so_far, item: override(verb, so_far, item),
        ((key.replace("__", "."), value) for key, value in flags.items()),
        tree,
    )


def test_override_opens_defaults_on_the_way():
    tree = overridden({}, model="VAE", model__encoder__head__min_std="0.1")
    tree = overridden(tree, learner__trainer__max_epochs="1", data__source="Lorenz")
    arguments = read_arguments(verb, tree)
    assert arguments["model"].keywords["encoder"].keywords["head"].keywords["min_std"] == 0.1
    trainer = arguments["learner"].trainer.keywords
    assert trainer["max_epochs"] == 1
    assert trainer["gradient_clip_val"] == GradientLearner().trainer.keywords["gradient_clip_val"]


def test_override_leaves_the_tree_alone():
    tree = {"model": {"class_path": "seqvae.models.VAE", "init_args": {"latent_dim": 2}}}
    assert overridden(tree, model__latent_dim=3)["model"]["init_args"]["latent_dim"] == 3
    assert tree["model"]["init_args"] == {"latent_dim": 2}


def test_new_class_keeps_the_arguments_that_fit():
    tree = {"model": {"class_path": "VAE", "init_args": {"latent_dim": 2, "dropout": 0.2}}}
    new = overridden(tree, model="SequentialVAE")["model"]
    assert new["class_path"] == "seqvae.models.SequentialVAE"
    assert new["init_args"] == {"dropout": 0.2}


def test_override_accepts_init_args_in_the_key():
    tree = overridden({}, model__class_path="VAE", model__init_args__latent_dim="4")
    assert tree["model"]["init_args"]["latent_dim"] == "4"
    assert read_arguments(verb, {**tree, "data": {"source": "Lorenz"}})["model"].keywords == {
        "latent_dim": 4
    }


def test_override_sets_an_entry_of_a_mapping():
    tree = overridden({"data": {"source": to_config(HDF5("f.h5"))}}, data__source__keys__rates="r")
    assert from_config(tree["data"], NeuralData).source == HDF5("f.h5", keys={"rates": "r"})


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("sed", "^sed does not exist; did you mean 'seed'"),
        ("seed.x", "seed.x does not exist: seed is int"),
        ("model.latent_dmi", "model.latent_dmi does not exist; did you mean 'latent_dim'"),
        ("model.observation.min", "model.observation.min does not exist"),
        ("data.source.path", "data.source has no class"),
    ],
)
def test_override_of_a_key_that_is_not_there(key, sentence):
    with pytest.raises(InputError, match=sentence):
        override(verb, {"model": "VAE"}, (key, 1))
