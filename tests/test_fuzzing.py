"""Whatever a file holds, it is loaded or refused in one sentence; never a traceback or a hang.

Here a part of what ``benchmarks/fuzz.py`` does with thousands of files.
"""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jaxtyping import TypeCheckError
from pytorch_lightning import Trainer

import mutations
from seqvae import fit
from seqvae.config import read_arguments
from seqvae.console.flags import read_command
from seqvae.console.main import main
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import HDF5, Arrays, Npz, from_path
from seqvae.data.splits import choose_heldin, split_trials
from seqvae.distributions.kinds import Binary, Counts, Nonnegative, Real
from seqvae.errors import InputError, one_line
from seqvae.learning import GradientLearner
from seqvae.storage.yaml_json import parse_yaml
from tiny import SVAE, tiny_data

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = 120
EXAMPLES = int(os.environ.get("SEQVAE_EXAMPLES", "60"))
QUICK = settings(
    deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return mutations.write_corpus(tmp_path_factory.mktemp("whole"), CONFIGS)


def loaded(call: Any) -> Any:
    """Return what a call loads, or None where it refuses in a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call()
        except TypeCheckError:  # the tests check types, too
            return None
        except InputError as error:
            sentence = str(error)
    assert sentence == one_line(sentence) != ""
    return None


@pytest.mark.parametrize("kind", ["h5", "npz", "yaml"])
def test_whole_files_are_loaded(kind, corpus):
    for path in corpus[kind]:
        assert mutations.read(path) == "loaded"


@pytest.mark.parametrize("kind", ["h5", "npz", "yaml"])
def test_changed_files_are_loaded_whole_or_refused_in_a_sentence(kind, corpus, tmp_path):
    answers = []
    for seed in range(FILES):
        source = corpus[kind][seed % len(corpus[kind])]
        target = tmp_path / f"changed{source.suffix}"
        mutations.mutate(source, target, seed)
        answers.append(mutations.read(target) == "loaded")
    assert 0 < sum(answers) < FILES


def test_changes_are_a_function_of_the_seed(corpus, tmp_path):
    for path in (corpus["npz"][0], corpus["yaml"][0]):
        for seed in range(6):
            one, other = tmp_path / f"one{path.suffix}", tmp_path / f"other{path.suffix}"
            assert mutations.mutate(path, one, seed) == mutations.mutate(path, other, seed)
            assert mutations.read_bytes(one) == mutations.read_bytes(other)


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_command_line_answers_in_one_line(kind, corpus, tmp_path, capsys):
    for seed in range(20):
        target = tmp_path / f"changed.{kind}"
        mutations.mutate(corpus[kind][seed % 2], target, 1000 + seed)
        code = main(["check", "--data.source.path", str(target)])
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if ": warning: " not in line]
        assert (code, len(lines)) in ((0, 0), (2, 1)), err
        assert "Traceback" not in out + err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "run"
    learner = GradientLearner(partial(Trainer, max_epochs=1), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tiny_data(), SVAE, learner, run_dir=str(folder))
    return folder


@pytest.mark.parametrize("name", ["weights.pt", "provenance.json", "config.yaml"])
def test_changed_run_is_read_or_refused_in_a_sentence(name, run, tmp_path):
    for seed in range(15):
        folder = mutations.copy_run(run, tmp_path / "changed")
        mutations.mutate(run / name, folder / name, seed)
        sentence = mutations.read_run(folder)
        assert sentence == one_line(sentence) != ""


# --- recordings ----------------------------------------------------------------------------------

DTYPES = st.sampled_from(["f4", "f8", "f2", "i1", "i8", "u8", "?", "c8", "U3", "S3", "M8[s]", "O"])
VALUES = st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5, np.nan, np.inf, 1e39, -1e300, 2**24])


@st.composite
def any_array(draw, max_dims: int = 4) -> np.ndarray:
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=4))
    values = draw(arrays.arrays("f8", shape, elements=VALUES))
    dtype = draw(DTYPES)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return values.astype(dtype)
        except (TypeError, ValueError, OverflowError):
            return values


@st.composite
def counts(draw) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)))
    values = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])
    return draw(arrays.arrays("f8", shape, elements=values))


NUMBERS = st.one_of(
    st.none(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.booleans()
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "bin_width": NUMBERS,
        "inputs": any_array(),
        "behavior": any_array(),
        "rates": any_array(),
        "condition": any_array(2),
        "neuron_ids": any_array(2),
        "trial_ids": any_array(2),
        "split": st.lists(st.sampled_from(["train", "val", "test", "x"]), max_size=5),
        "heldin": st.one_of(st.lists(st.integers(-2, 5), max_size=4), any_array(2)),
        "num_encoded_bins": NUMBERS,
        "image_shape": st.one_of(st.none(), st.tuples(NUMBERS, NUMBERS), any_array(1)),
    },
)


@QUICK
@given(activity=st.one_of(counts(), any_array()), fields=FIELDS)
def test_recording_is_whole_or_refused(activity, fields):
    found = loaded(lambda: Recording(activity, **fields))
    if found is not None:
        mutations.check_valid(found)
        for kind in (Counts(), Binary(), Real(), Nonnegative()):
            loaded(lambda kind=kind: kind.check(found.activity))


@QUICK
@given(
    activity=counts(),
    heldout=st.one_of(st.none(), st.floats(), st.lists(st.integers(-2, 6), max_size=4)),
    fractions=st.tuples(st.floats(), st.floats()),
    forecast=st.one_of(st.none(), st.integers(-2, 6)),
    seed=st.integers(-1, 3),
)
def test_split_keeps_every_trial_once_or_is_refused(activity, heldout, fractions, forecast, seed):
    recording = loaded(lambda: Recording(activity))
    if recording is None:
        return
    val, test = fractions
    split = loaded(
        lambda: split_trials(recording, val_fraction=val, test_fraction=test, seed=abs(seed))
    )
    if split is not None:
        assert len(split) == recording.num_trials
        assert "train" in split
    heldin = loaded(lambda: choose_heldin(recording, heldout, seed=abs(seed)))
    if heldin is not None:
        assert 0 < len(set(heldin)) == len(heldin) <= recording.num_neurons

    def make() -> NeuralData:
        data = NeuralData(
            Arrays(recording),
            val_fraction=val,
            test_fraction=test,
            heldout=heldout,
            forecast_bins=forecast,
            split_seed=seed,
        )
        data.setup()
        return data

    data = loaded(make)
    if data is not None:
        assert sum(len(batch) for batch in data.batches("all")) == recording.num_trials


@QUICK
@given(
    names=st.lists(
        st.sampled_from(["activity", "train_recon_data", "train_encod_data", "valid_recon_data",
                         "bin_width", "bin_width_s", "split", "heldin", "condition", "x"]),
        min_size=1, max_size=5, unique=True,
    ),
    keys=st.dictionaries(
        st.sampled_from(["activity", "encoded", "condition", "bin_width", "y"]),
        st.sampled_from(["activity", "{split}_recon_data", "x", "{", "{0}", "../x", ""]),
        max_size=2,
    ),
    data=st.data(),
)  # fmt: skip
def test_source_of_any_entries_is_whole_or_refused(names, keys, data, tmp_path_factory):
    entries = {name: data.draw(st.one_of(counts(), any_array())) for name in names}
    entries = {name: array for name, array in entries.items() if array.dtype.kind != "O"}
    folder = tmp_path_factory.mktemp("entries")
    for name, source in (("a.npz", Npz), ("a.h5", HDF5)):
        mutations.write_arrays(folder / name, entries)
        for call in (from_path(folder / name).load, source(folder / name, keys=keys).load):
            found = loaded(call)
            if found is not None:
                mutations.check_valid(found)


# --- configs -------------------------------------------------------------------------------------

TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
              st.sampled_from(["VAE", "seqvae.models.VAE", "os.system", "torch.optim.Adam"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["class_path", "init_args", "latent_dim", "source", "data", "model",
                             "observation", "trainer", "x", "1"]),
            inner, max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@QUICK
@given(tree=st.dictionaries(st.sampled_from(["data", "model", "learner", "seed", "x"]), TREES))
def test_any_tree_is_a_config_or_refused(tree):
    for trust in (False, True):
        loaded(lambda trust=trust: read_arguments(fit, read_command(fit, tree, {}), trust=trust))


@QUICK
@given(text=st.text(alphabet=st.sampled_from("ab01:-[]{}&*!?|>'\"#%\n\t ,.~<@`\\é\x1b\0")))
def test_any_text_is_yaml_or_refused(text):
    found = loaded(lambda: parse_yaml(text, "it"))
    if found is not None:
        yaml.safe_dump(found)
