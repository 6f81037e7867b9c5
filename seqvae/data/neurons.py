"""Which neuron is which: by name where both sides name their neurons, else by position."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from seqvae.errors import InputError
from seqvae.types import DataSpec


class Positions(np.ndarray):
    """The numbers 0, 1, ... of neurons that nobody has named."""

    @classmethod
    def of(cls, num_neurons: int) -> Positions:
        """Number some neurons."""
        return np.arange(num_neurons).view(cls)


def neuron_columns(
    num_neurons: int,
    names: Shaped[np.ndarray, " neuron"] | None,
    spec: DataSpec,
    model_names: Shaped[np.ndarray, " model_neuron"] | None,
) -> Int[np.ndarray, " model_neuron"]:
    """Return for each neuron of a model its column in other data; -1 where they lack it.

    Where both sides have names, the names decide. The data must hold all neurons that are held in;
    others are left out, with a warning, if the data hold all neurons of the model. Where a side has
    none, the data must hold all neurons, or those that are held in, in the order of the model. The
    numbers 0, 1, ... in this order are no names, unless other names of the data are among them.

    Args:
        num_neurons: neurons of the data.
        names: of the neurons of the data; None: they have none.
        spec: of the model.
        model_names: of the neurons of the model; None: they have none.

    Raises:
        InputError: if names are missing, unknown or not unique, or the numbers do not fit.
    """
    heldin = np.array(spec.heldin)
    sides = _named(names, model_names, spec.num_neurons)
    if sides is None:
        if num_neurons == spec.num_neurons:
            return np.arange(num_neurons)
        if num_neurons != spec.num_heldin:
            raise InputError(
                f"activity has {num_neurons} neurons, but the model was trained with "
                f"{spec.num_neurons}, {spec.num_heldin} of them held in; give the same neurons"
            )
        warnings.warn(
            f"activity has {num_neurons} neurons without names of the model's {spec.num_neurons}: "
            "they are taken for those that are held in, in their order; name them (neuron_ids) if "
            "they are others",
            stacklevel=2,
        )
        columns = np.full(spec.num_neurons, -1)
        columns[heldin] = np.arange(num_neurons)
        return columns
    there, known = sides
    if there == known:
        return np.arange(num_neurons)
    place = _places(there, "the data")
    columns = np.array([place.get(word, -1) for word in known])
    unknown = sorted(set(place.values()) - set(columns.tolist()))
    needed = np.arange(spec.num_neurons) if unknown else heldin
    missing = needed[columns[needed] < 0]
    _places(known, "the model")
    if missing.size:
        also = f", and hold {_counted(unknown, there)} that it does not know" if unknown else ""
        raise InputError(
            f"neuron_ids: the data lack {_counted(missing, known)} of the model{also}; give the "
            "neurons of the model, or leave neuron_ids out if their order is that of the model"
        )
    if unknown:
        warnings.warn(
            f"neuron_ids: the data hold {_counted(unknown, there)} that the model does not know; "
            "what they hold of other neurons is taken",
            stacklevel=2,
        )
    return columns


def order_of(
    names: Shaped[np.ndarray, " neuron"] | None,
    model_names: Shaped[np.ndarray, " model_neuron"] | None,
) -> Int[np.ndarray, " neuron"] | None:
    """Return where the neurons of a model lie among the same ones in another order, else None."""
    sides = None if names is None else _named(names, model_names, len(names))
    if sides is None:
        return None
    there, known = sides
    if there == known or sorted(there) != sorted(known) or len(set(there)) < len(there):
        return None
    place = {word: index for index, word in enumerate(there)}
    return np.array([place[word] for word in known])


def check_same_neurons(
    spec: DataSpec,
    names: Shaped[np.ndarray, " neuron"] | None,
    former_spec: DataSpec,
    former_names: Shaped[np.ndarray, " former_neuron"] | None,
    *,
    reads_heldin: bool,
) -> None:
    """Refuse a model to begin from whose weights are of other neurons, or of others in order.

    Weights of another number of neurons have no place, so those are not compared.

    Args:
        spec: of the data to learn from.
        names: of their neurons; None: they have none, and go by position.
        former_spec: of the model to begin from.
        former_names: of its neurons.
        reads_heldin: whether weights depend on which neurons are held in.

    Raises:
        InputError: naming the first neuron that differs.
    """
    all_now: list[Any] = list(range(spec.num_neurons))
    all_then: list[Any] = list(range(former_spec.num_neurons))
    if names is not None and former_names is not None:
        all_now, all_then = _words(names), _words(former_names)
    elif spec.num_neurons != former_spec.num_neurons:
        return
    pairs = [(all_now, all_then, "neuron")]
    if reads_heldin:
        heldin_now = [all_now[neuron] for neuron in spec.heldin]
        heldin_then = [all_then[neuron] for neuron in former_spec.heldin]
        pairs.append((heldin_now, heldin_then, "held-in neuron"))
    for now, then, what in pairs:
        if len(now) != len(then) or now == then:
            continue
        index = next(
            i for i, (one, other) in enumerate(zip(now, then, strict=True)) if one != other
        )
        cure = "bring the neurons into its order" if set(now) == set(then) else "give its neurons"
        if names is None or former_names is None:
            cure = "hold out the same neurons (heldout)"
        raise InputError(
            f"{what} {index} is {now[index]!r} in the data and {then[index]!r} in the model to "
            f"begin from, so its weights are of other neurons; {cure}"
        )


def _named(
    names: Shaped[np.ndarray, " neuron"] | None,
    model_names: Shaped[np.ndarray, " model_neuron"] | None,
    num_model_neurons: int,
) -> tuple[list[str], list[str]] | None:
    """Return the names of both sides; None: neurons are known by position."""
    if names is None:
        return None
    there, numbers = _words(names), [*map(str, range(max(len(names), num_model_neurons)))]
    known = numbers[:num_model_neurons] if model_names is None else _words(model_names)
    if there == numbers[: len(there)] and known == numbers[: len(known)]:
        return None
    is_foreign = model_names is None and not set(there) <= set(known)
    return None if is_foreign else (there, known)


def _words(names: Shaped[np.ndarray, " neuron"]) -> list[str]:
    """Write names so that a number is the same whatever its type."""
    if names.dtype.kind == "f":
        return [str(int(name)) if float(name).is_integer() else str(name) for name in names]
    return [str(name) for name in (names.astype(int) if names.dtype.kind == "b" else names)]


def _places(words: list[str], where: str) -> dict[str, int]:
    """Return the index of each name; refuse a name that is there twice."""
    place: dict[str, int] = {}
    for index, word in enumerate(words):
        if place.setdefault(word, index) != index:
            raise InputError(
                f"neuron_ids: neurons {place[word]} and {index} of {where} are both named "
                f"{word!r}, so that names cannot tell them apart; name each neuron once"
            )
    return place


def _counted(neurons: Any, words: list[str]) -> str:
    first = words[int(neurons[0])]
    number = len(neurons)
    return f"neuron {first!r}" if number == 1 else f"{number} neurons (the first is {first!r})"
