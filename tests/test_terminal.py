from __future__ import annotations

from seqvae.terminal import help_text, table


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


def test_table_has_a_row_for_each_baseline_and_a_column_for_each_score():
    metrics = {
        "split": "val",
        "num_trials": 50,
        "elbo": -12.25,
        "co_bps": 0.25,
        "baselines": {"mean_rate": {"co_bps": 0.0}, "smoothing_glm": {"co_bps": 0.125, "r2": 1.0}},
    }
    assert table(metrics).splitlines() == [
        "split: val",
        "num_trials: 50",
        "                   elbo  co_bps      r2",
        "model          -12.2500  0.2500       -",
        "mean_rate             -  0.0000       -",
        "smoothing_glm         -  0.1250  1.0000",
    ]


def test_help_reads_the_docstring():
    lines = help_text("fit", undocumented, {}).splitlines()
    assert lines[2] == "Do nothing much, slowly."
    assert lines[4:8] == [
        "  --size  int",
        "      how large, in bins.",
        "  --rate  float [0.5]",
        "      how fast.",
    ]
