from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import seqvae
from seqvae.verbs.table import PACKAGE, verbs

ROOT = Path(seqvae.__file__).parents[1]
HEAVY = {"torch", "pytorch_lightning", "xarray", "matplotlib", "sklearn", "scipy", "wandb", "h5py"}


def imported(*command: str) -> set[str]:
    """Return the top-level packages that a command of Python imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    lines = [
        line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")
    ]
    return {columns[2].strip().split(".")[0] for columns in lines}


@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import seqvae"),
        ("-m", "seqvae", "--help"),
        ("-m", "seqvae", "--version"),
        ("-m", "seqvae", "fti"),
        ("-m", "seqvae", "fit", "--config", "nowhere.yaml"),
        ("-m", "seqvae", "infer", "--run", "nowhere"),
    ],
)
def test_first_contact_imports_nothing_heavy(command):
    assert not imported(*command) & {*HEAVY, "numpy", "jsonargparse"}


def test_refused_typo_imports_nothing_heavy_beyond_lightning():
    unavoidable = imported("-c", "import pytorch_lightning")
    flags = ("--data.source", "Lorenz", "--model", "SequentialVAE", "--model.factor_dmi", "3")
    assert not (imported("-m", "seqvae", "fit", *flags) - unavoidable) & HEAVY


def test_public_names_are_what_they_say():
    from seqvae.models import VAE
    from seqvae.verbs.fit import fit

    assert seqvae.VAE is VAE
    assert seqvae.fit is fit
    assert set(seqvae.__all__) <= set(dir(seqvae))
    for name in seqvae.__all__:
        assert getattr(seqvae, name).__name__.split(".")[-1] == name


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="LFADS"):
        _ = seqvae.LFADS


def test_public_names_are_as_if_imported_from_their_homes():
    import seqvae.data.sources
    import seqvae.plotting

    assert seqvae.Arrays is seqvae.data.sources.Arrays
    assert callable(seqvae.plotting.rate_traces)
    assert seqvae.__version__.count(".") == 2


def test_version_and_plotting_are_there_without_an_import():
    code = "import seqvae; seqvae.plotting.rate_traces; print(seqvae.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == seqvae.__version__, done.stderr


def test_no_package_has_the_name_of_a_verb():
    """Whichever was imported first would be what ``seqvae.<name>`` is."""
    modules = {module.name for module in pkgutil.iter_modules(seqvae.__path__)}
    assert len(modules) > 20
    assert modules & set(verbs()) == set()


def test_class_path_does_not_depend_on_which_names_were_used():
    """Configs name classes by their package, also after ``seqvae.NeuralData`` was touched."""
    from seqvae.config.class_paths import class_path

    assert class_path(seqvae.NeuralData) == "seqvae.data.NeuralData"
    assert class_path(seqvae.VAE) == "seqvae.models.VAE"


def test_every_verb_is_listed_once_and_tells_what_it_does():
    """A file in ``seqvae/verbs`` and a line in the stub make a verb."""
    table = verbs()
    files = {
        path.stem
        for path in (PACKAGE / "verbs").glob("*.py")
        if f"\ndef {path.stem}(" in path.read_text(encoding="utf-8")
    }
    assert files - {"advice"} == set(table) <= set(seqvae.__all__)
    for verb in table.values():
        assert 20 < len(verb.summary) < 90
        assert verb.function is getattr(seqvae, verb.name)
        assert verb.function.__module__ == f"seqvae.verbs.{verb.name}"
