"""A recording is the same in whatever containers it comes, or it is refused in one sentence."""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqvae.data import Recording
from seqvae.data.sources import Arrays
from seqvae.data.sources.front import as_source
from seqvae.errors import InputError

DTYPES = ("u1", "i2", "i4", "i8", "f2", "f4", "f8", ">f4", ">i4")
PER_TRIAL = ("condition", "split", "trial_ids", "lengths")


def masked(array):
    missing = np.isnan(array)
    return np.ma.masked_array(np.where(missing, 99, array), missing)


def objects(missing):
    def wrap(array):
        boxed = array.astype(object)
        boxed[np.isnan(array)] = missing
        return boxed

    return wrap


def filled(kind):
    """Numbers of one type, where nothing is missing."""

    def wrap(array):
        if np.isnan(array).any() and np.dtype(kind).kind != "f":
            return masked(array).astype(kind)
        return array.astype(kind)

    return wrap


WRAPS = {
    **{kind: filled(kind) for kind in DTYPES},
    "masked": masked,
    "fortran": np.asfortranarray,
    "nested lists": lambda array: array.tolist(),
    "tensor": torch.tensor,
    "bfloat16": lambda array: torch.tensor(array, dtype=torch.bfloat16),
    "needs a gradient": lambda array: torch.tensor(array, requires_grad=True),
    "sparse tensor": lambda array: torch.tensor(array).to_sparse(),
    "None": objects(None),
    "NA": objects(pd.NA),
    "decimals": lambda array: np.vectorize(lambda v: Decimal(str(v)), otypes=[object])(array),
    "list of arrays": list,
    "list of masked arrays": lambda array: [masked(part) for part in array],
    "list of tensors": lambda array: [torch.tensor(part) for part in array],
    "list of lists": lambda array: [part.tolist() for part in array],
}
TABLES = {
    "frame": pd.DataFrame,
    "nullable frame": lambda array: pd.DataFrame(array).astype("Int64"),
    "sparse matrix": scipy.sparse.csr_matrix,
    "sparse array": scipy.sparse.coo_array,
    "sparse frame": lambda array: pd.DataFrame(array).astype(pd.SparseDtype("float64", np.nan)),
}
LABELS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "objects": lambda labels: np.array(labels, dtype=object),
    "Series": pd.Series,
    "category": lambda labels: pd.Series(labels).astype("category"),
    "Categorical": pd.Categorical,
    "Index": pd.Index,
    "masked": np.ma.masked_array,
    "column": lambda labels: np.array(labels)[:, None],
    "nullable": lambda labels: pd.array(labels),
    "bytes": lambda labels: np.array(labels).astype("S") if isinstance(labels[0], str) else labels,
    "DataArray": lambda labels: xr.DataArray(np.array(labels), dims="trial"),
    "tensor": lambda labels: torch.tensor(labels) if isinstance(labels[0], int) else labels,
}


@st.composite
def truths(draw):
    """Counts (trial, time, neuron) with missing entries, and what stands beside them."""
    trials, bins, neurons = (draw(st.integers(low, 4)) for low in (1, 2, 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    activity = rng.integers(0, 9, (trials, bins, neurons)).astype(float)
    activity[:, 0, 0] = activity[:, -1, -1] = 5
    if draw(st.booleans()):
        activity[rng.random(activity.shape) < 0.2] = np.nan
        activity[:, 0, 0] = activity[:, -1, -1] = 5
    fields = {"activity": activity}
    if draw(st.booleans()):
        fields["rates"] = rng.integers(0, 9, activity.shape).astype(float)
    if draw(st.booleans()):
        fields["behavior"] = rng.integers(0, 9, (trials, bins, 2)).astype(float)
    ids = draw(st.permutations([f"n{neuron}" for neuron in range(neurons)]))
    names = draw(st.permutations(range(10, 10 + trials)))
    labels = {
        "condition": draw(st.sampled_from([["a", "b", "a", "c"], [3, 1, 3, 2]]))[:trials],
        "split": ["train", "val", "train", "test"][:trials],
    }
    return fields, list(ids), list(names), labels, rng


def loaded(**fields):
    """Return the recording, or None where it is refused in one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            recording = Arrays(**fields).load()
        except InputError as error:
            sentence = str(error)
        else:
            return recording
    assert "\n" not in sentence
    assert len(sentence) > 20
    return None


def check_same(recording, truth):
    for name, value in truth.items():
        seen = getattr(recording, name)
        if name in ("activity", "rates", "behavior", "inputs"):
            np.testing.assert_array_equal(seen, np.float32(value), err_msg=name)
        else:
            assert seen.tolist() == list(value), name


def data_array(name, array, ids, names, order, dims):
    """Name the axes of a series, and put trials, neurons and dims in some order."""
    trials, neurons = order
    last = "dimension" if name == "behavior" else "neuron"
    coords = {"trial": names}
    if last == "neuron":
        coords["neuron"] = ids
    labelled = xr.DataArray(array, dims=("trial", "time", last), coords=coords)
    labelled = labelled.isel(trial=trials)
    labelled = labelled.isel(neuron=neurons) if last == "neuron" else labelled
    return labelled.transpose(*[(*labelled.dims,)[axis] for axis in dims])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(truths(), st.data())
def test_numbers_and_labels_are_the_same_in_every_container(truth, data):
    fields, ids, names, labels, _ = truth
    wrapped = {}
    for name, array in fields.items():
        kind = data.draw(st.sampled_from([*WRAPS, *TABLES]), label=name)
        if kind in TABLES:
            wrapped[name] = [TABLES[kind](trial) for trial in array]
        else:
            wrapped[name] = WRAPS[kind](array)
    beside = {**labels, "trial_ids": names, "neuron_ids": ids}
    for name, values in beside.items():
        wrapped[name] = LABELS[data.draw(st.sampled_from(list(LABELS)), label=name)](values)
    recording = loaded(**wrapped)
    assert recording is not None
    check_same(recording, {**fields, **beside})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(truths(), st.data())
def test_what_is_named_stands_where_its_name_does(truth, data):
    fields, ids, names, labels, rng = truth
    num_trials, _, num_neurons = fields["activity"].shape
    wrapped = {
        name: data_array(
            name,
            array,
            ids,
            names,
            (np.arange(num_trials), np.arange(num_neurons))
            if name == "activity"
            else (rng.permutation(num_trials), rng.permutation(num_neurons)),
            data.draw(st.permutations(range(3))),
        )
        for name, array in fields.items()
    }
    order = rng.permutation(num_trials)
    for name, values in labels.items():
        whole = xr.DataArray(np.array(values), dims="trial", coords={"trial": names})
        wrapped[name] = whole.isel(trial=order)
    recording = loaded(**wrapped)
    assert recording is not None
    check_same(recording, {**fields, **labels, "trial_ids": names, "neuron_ids": ids})
    activity = wrapped["activity"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of neurons that happen to be silent
        alone = as_source(activity).load()
    check_same(alone, {"activity": fields["activity"], "neuron_ids": ids})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(truths(), st.data())
def test_lengths_and_lists_of_unequal_trials_say_the_same(truth, data):
    fields, ids, _, labels, rng = truth
    bins = fields["activity"].shape[1]
    lengths = [int(n) for n in rng.integers(1, bins + 1, len(fields["activity"]))]
    lengths[0] = bins
    beyond = np.arange(bins) >= np.array(lengths)[:, None]
    ragged, expected = {}, {}
    for name, array in fields.items():
        expected[name] = np.where(beyond[..., None], np.nan, array)
        kind = data.draw(st.sampled_from(list(TABLES)), label=name)
        trials = [trial[:n] for trial, n in zip(array, lengths, strict=True)]
        ragged[name] = [TABLES[kind](trial) for trial in trials]
    padded = {name: np.where(beyond[..., None], 7, array) for name, array in fields.items()}
    padded["lengths"] = LABELS[data.draw(st.sampled_from(list(LABELS)))](lengths)
    alone = {"neuron_ids": ids, **labels}
    for given_fields in (ragged, padded):
        recording = loaded(**given_fields, **alone)
        assert recording is not None
        check_same(recording, {**expected, **alone})


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(truths(), st.data())
def test_tables_whose_columns_stand_in_another_order_follow_their_names(truth, data):
    fields, ids, _, _, rng = truth
    frames = [pd.DataFrame(trial, columns=ids) for trial in fields["activity"]]
    shuffled = [frames[0], *(frame[list(rng.permutation(ids))] for frame in frames[1:])]
    recording = loaded(activity=shuffled)
    check_same(recording, {"activity": fields["activity"], "neuron_ids": ids})
    other = [frame.rename(columns={ids[0]: "foreign"}) for frame in shuffled]
    if len(frames) > 1:
        assert loaded(activity=[frames[0], *other[1:]]) is None
    given_ids = data.draw(st.permutations(ids))
    recording = loaded(activity=frames, neuron_ids=given_ids)
    assert (recording is None) == (list(given_ids) != ids)


BROKEN = st.sampled_from(
    [
        "text",
        b"bytes",
        {"a": 1},
        {1, 2},
        3,
        1j,
        object(),
        [],
        [[]],
        np.array(["a", "b"]),
        np.array([1 + 1j, 2]),
        np.array(["2020-01-01", "2020-01-02"], dtype="M8[D]"),
        pd.Series([1.0, None]),
        pd.Series(["a", None]),
        pd.DataFrame({"a": ["x", "y"]}),
        np.ma.masked_array([1, 2], [True, False]),
        torch.tensor([1.0, 2.0]),
        [1, "a"],
        [None, None],
        np.full((2, 3, 2), np.inf),
        np.zeros((0, 3, 2)),
        iter([1, 2]),
        pd.MultiIndex.from_tuples([(1, 2), (1, 3)]),
    ]
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(
        ["activity", "inputs", "behavior", "rates", "neuron_ids", "heldin", *PER_TRIAL]
    ),
    BROKEN,
)
def test_what_holds_something_else_is_refused_in_one_sentence(name, broken):
    fields = {"activity": np.arange(1.0, 13).reshape(2, 3, 2), name: broken}
    recording = loaded(**fields)
    assert recording is None or isinstance(recording, Recording)


@pytest.mark.parametrize("ids", [["a", "a", "b"], [1, 2, 1], pd.Series(["x", "y", "x"])])
def test_a_name_of_two_neurons_is_refused(ids):
    with pytest.raises(InputError, match="which neuron 0 is called, too"):
        Recording(np.ones((2, 3, 3)) * np.arange(3), neuron_ids=ids)
