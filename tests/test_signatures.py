# ruff: noqa: UP007, UP045 (the old spellings are what foreign signatures hold)
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from seqvae.config import to_config
from seqvae.config.signatures import (
    REQUIRED,
    Part,
    describe,
    is_abstract,
    item_annotation,
    parameters,
    parts,
    read_leaf,
    takes_any_name,
)

if TYPE_CHECKING:
    from nowhere import Nothing


class Base:
    def __init__(self, size: int, *, depth: int = 2) -> None:
        self.size, self.depth = size, depth


class Passing(Base):
    def __init__(self, width: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width


class Service:
    def __init__(self, name: str, unknown: Nothing | None = None, **kwargs: Any) -> None:
        self.name = name


@dataclasses.dataclass(frozen=True)
class Settings:
    sizes: list[int] = dataclasses.field(default_factory=lambda: [1, 2])


def test_parameters_follow_kwargs_to_the_ancestor():
    assert list(parameters(Passing)) == ["width", "size", "depth"]
    assert parameters(Passing)["size"].default is REQUIRED
    assert not takes_any_name(Passing)
    assert takes_any_name(Service)


def test_arguments_of_a_namesake_that_is_wrapped_are_not_asked_for():
    arguments = parameters(TensorBoardLogger)
    assert [name for name in arguments if arguments[name].default is REQUIRED] == ["save_dir"]
    assert "root_dir" not in arguments
    assert takes_any_name(TensorBoardLogger)


def test_annotation_for_type_checkers_only_is_any():
    assert parameters(Service)["unknown"].annotation is Any
    assert parameters(Service)["name"].annotation is str


def test_default_factory_is_called():
    assert parameters(Settings)["sizes"].default == [1, 2]


def test_parts_tell_instances_from_factories():
    assert parts(Optional[Base]) == [Part(Base)]
    assert parts(Callable[[int, int], nn.Module] | None) == [Part(nn.Module, True, 2)]
    assert parts(Callable[..., nn.Module]) == [Part(nn.Module, True, 0)]
    assert parts(float | Tensor | None) == []
    assert parts(Callable[[int], int]) == []


def test_items_of_a_list_of_parts():
    assert item_annotation(Union[Base, Iterable[Base], bool]) is Base
    assert item_annotation(list[int] | None) is None


@pytest.mark.parametrize(
    ("value", "annotation", "read"),
    [
        ("4", int, 4),
        (1, float, 1.0),
        ("1e-3", float, 1e-3),
        ("null", Optional[float], None),
        ("[1, 2]", float | list[int] | None, [1, 2]),
        ([0.9, 0.99], tuple[float | Tensor, float | Tensor], (0.9, 0.99)),
        ([3, 4], Sequence[int], [3, 4]),
        ({"a": "b"}, dict[str, str] | None, {"a": "b"}),
        ("64", Literal[64, 32], 64),
        ("x", Path, Path("x")),
        ("seven", Base | str, "seven"),
        ({"any": 1}, Any, {"any": 1}),
    ],
)
def test_leaf_is_read_as_its_type(value, annotation, read):
    assert read_leaf(value, annotation) == (True, read)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("x", int),
        (4.5, int),
        (True, int),
        (3, str),
        ("c", Literal["a", "b"]),
        ("os.system", Callable[[str], int]),
        ("test_signatures.Base", Base),
        ("test_signatures.Base", type[Base]),
        ([{"class_path": "os.system"}, 1.0], tuple[float | Tensor, float | Tensor]),
        ({"a": "x"}, dict[str, int]),
    ],
)
def test_leaf_of_another_type_is_refused(value, annotation):
    assert read_leaf(value, annotation) == (False, value)


def test_describe_speaks_as_yaml_does():
    assert describe(Optional[int]) == "int or null"
    assert describe(Callable[[int], Base] | None) == "a class of Base or null"
    assert describe(Literal["a", "b"]) == "'a' or 'b'"


def test_class_with_open_methods_is_abstract_without_abc():
    from seqvae.models import VAE, LatentVariableModel

    assert is_abstract(LatentVariableModel)
    assert not is_abstract(VAE)


def test_fields_that_are_inherited_are_read_where_they_were_declared():
    from seqvae.data.sources import LimitCycle, Lorenz

    for source in (Lorenz, LimitCycle):
        declared = parameters(source)["num_conditions"]
        assert declared.annotation == int | None
        assert not declared.tells_default
        assert "num_conditions" not in to_config(source())["init_args"]
        assert to_config(source(num_conditions=3))["init_args"]["num_conditions"] == 3
