from __future__ import annotations

import inspect

import pytest

import seqvae.encoders
from contracts.walk import members
from seqvae.console.printing import help_text
from seqvae.encoders import Encoder, Head
from seqvae.verbs.evaluate import score_table as table


def undocumented(size: int, *, rate: float = 0.5) -> None:
    """Do nothing much,
    slowly.

    Args:
        size: how large,
            in bins.
        rate: how fast.

    Returns:
        Nothing.
    """


class Base:
    """A base.

    Args:
        size: how large.
        rate: how fast.
    """


class Member(Base):
    """A member.

    Args:
        rate: how fast, in hertz.
    """

    def __init__(self, size: int, *, rate: float = 0.5) -> None: ...


def test_table_has_a_column_for_each_baseline_and_a_row_for_each_score():
    metrics = {
        "split": "val",
        "num_trials": 50,
        "elbo": -12.25,
        "co_bps": 0.25,
        "behavior_r2": [0.5, 0.25],
        "baselines": {"mean_rate": {"co_bps": 0.0}, "smoothing_glm": {"co_bps": 0.125, "r2": 1.0}},
        "gain": {"mean_rate": {"mean": 0.25, "standard_error": 0.5}},
    }
    assert table(metrics).splitlines() == [
        "split: val",
        "num_trials: 50",
        "                     model  mean_rate  smoothing_glm",
        "elbo              -12.2500          -              -",
        "co_bps              0.2500     0.0000         0.1250",
        "behavior_r2  0.500 / 0.250          -              -",
        "r2                       -          -         1.0000",
        "gain over mean_rate on what the model did not see: 0.2500 +- 0.5000 bits per spike "
        "(paired over trials)",
    ]


def test_refined_scores_stand_beside_the_model():
    lines = table({"elbo": -2.0, "refined": {"elbo": -1.5}, "baselines": {}}).splitlines()
    assert lines == ["        model  refined", "elbo  -2.0000  -1.5000"]


def test_help_reads_the_docstring():
    lines = help_text("fit", undocumented, {}).splitlines()
    assert lines[2] == "Do nothing much, slowly."
    assert lines[4:8] == [
        "  --size  int",
        "      how large, in bins.",
        "  --rate  float [0.5]",
        "      how fast.",
    ]


def test_help_takes_what_a_class_leaves_out_of_its_ancestors():
    assert help_text("fit", Member, {}).splitlines()[4:8] == [
        "  --size  int",
        "      how large.",
        "  --rate  float [0.5]",
        "      how fast, in hertz.",
    ]


@pytest.mark.parametrize(
    "member", members(seqvae.encoders, Encoder) + members(seqvae.encoders, Head)
)
def test_help_tells_every_argument_of_an_encoder(member: type):
    lines = help_text("fit", member, {}).splitlines()
    for name in inspect.signature(member).parameters:
        (row,) = (i for i, line in enumerate(lines) if line.startswith(f"  --{name}  "))
        assert lines[row + 1].startswith("      ")
