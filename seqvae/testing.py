"""For the tests of models, learners and transforms of one's own."""

from __future__ import annotations

from typing import Literal

from seqvae.data.front import BinWidth, DataLike
from seqvae.learning import Learner
from seqvae.runs import ModelFactory
from seqvae.verbs.leakcheck import leakcheck


def assert_no_leak(
    model: ModelFactory | None,
    data: DataLike,
    learner: Learner | None = None,
    *,
    bin_width: BinWidth = None,
    members: int = 1,
    report: bool = False,
    scheme: Literal["fold_in", "gabriel", "speckled"] | None = None,
    seed: int = 0,
) -> None:
    """Assert that ``seqvae.leakcheck`` finds no leak.

        def test_my_model_knows_nothing_of_the_test():
            assert_no_leak(partial(MyModel, latent_dim=2), NeuralData(counts, test_fraction=0.2))

    Args:
        model: factory of the model; None: as ``fit`` takes it.
        data: the recording, how it is split, and what inference may see.
        learner: how it is learned; None: as ``fit`` takes it. A few epochs tell as much as many.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        members: fits of an ensemble; 1: none.
        report: ask what is told of the fit, too.
        scheme: ask a cell of a cross-validation by this scheme instead of a fit.
        seed: of the fits.

    Raises:
        AssertionError: with a sentence for each leak.
        InputError: as ``leakcheck`` does.
    """
    result = leakcheck(
        data, model, learner, bin_width=bin_width, members=members, report=report, scheme=scheme,
        seed=seed,
    )  # fmt: skip
    leaks = [check for check in result["checks"] if check["passed"] is False]
    if leaks:
        words = "; ".join(f"{check['name']}: {check['sentence']}" for check in leaks)
        raise AssertionError(
            f"{len(leaks)} of {len(result['checks'])} checks found a leak: {words}"
        )
