"""What the shell completes."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from seqvae.console import main as cli

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "seqvae.sh"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda text, end, flush: lines.append(text))
        assert cli.main(["--completion"]) == 0
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize(
    ("words", "expected", "absent"),
    [
        (["ev"], {"evaluate"}, "fit"),
        (["--"], {"--help", "--version"}, "fit"),
        (["fit", "--model", "Seq"], {"SequentialVAE"}, "FLDS"),
        (["fit", "--model.fac"], {"--model.factor_dim"}, "--model"),
        (["fit", "--data.source", "N"], {"NWB", "Npz", "Npy"}, "HDF5"),
        (["fit", "--learner.trainer.max_e"], {"--learner.trainer.max_epochs"}, "--model"),
        (["evaluate", "--run", ""], set(), "Run"),  # a folder, which the shell knows
        (["crossvalidate", "--tr"], {"--trial_folds"}, "--out_dir"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_the_shell_completes_verbs_flags_and_classes(script, words, expected, absent):
    line = " ".join(f"'{word}'" for word in ("seqvae", *words))
    state = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}"
    code = f'. {script}; {state}; _seqvae; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    answers = set(done.stdout.split())
    assert expected <= answers
    assert absent not in answers
    assert not done.stderr
