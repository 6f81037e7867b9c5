"""Models as scikit-learn estimators: its own checks, its pipelines and its searches."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from seqvae import (
    EM,
    FLDS,
    VAE,
    InputError,
    LinearDynamics,
    NonlinearDynamics,
    SequentialVAE,
    infer,
)
from seqvae.sklearn import LatentTransformer
from tiny import SVAE, tiny_learner

PLDS = partial(LatentTransformer, LinearDynamics, dim=2, bin_width=0.02,
               learner=EM(max_iterations=1))  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of neurons without variation, of few samples
@parametrize_with_checks([LatentTransformer(dim=2)])  # of all checks none is expected to fail
def test_scikit_learn_finds_nothing_to_mend(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def counts():
    """Rates of two kinds of trial: (trial, time, neuron), and which kind each is."""
    generator = np.random.default_rng(0)
    kind = np.arange(40) % 2
    level = np.where(kind[:, None] == 0, generator.uniform(0.3, 3, 6), generator.uniform(0.3, 3, 6))
    return generator.poisson(np.repeat(level[:, None], 10, axis=1)).astype(float), kind


@pytest.mark.parametrize(
    ("model", "learner"),
    [(LinearDynamics, EM(max_iterations=1)), (SVAE, tiny_learner(1)), (VAE, tiny_learner(1)),
     (FLDS, tiny_learner(1))],
    ids=["plds", "svae", "vae", "flds"],
)  # fmt: skip
def test_every_model_goes_to_latents_and_back(model, learner, counts):
    estimator = LatentTransformer(model, dim=2, learner=learner, bin_width=0.02, num_samples=4)
    x = counts[0][:20]
    latents = estimator.fit(x).transform(x)
    assert latents.shape == (20, 10, 2)
    assert estimator.inverse_transform(latents).shape == x.shape
    variable = "factors" if model is SVAE else "latent_mean" if model is VAE else "latents_mean"
    posterior = infer(estimator.run_, x, bin_width=0.02, num_samples=4)
    np.testing.assert_allclose(latents, posterior[variable].values, atol=1e-6)
    there, back = posterior.rates.values * 0.02, estimator.inverse_transform(latents)
    assert np.corrcoef(there.ravel(), back.ravel())[0, 1] > 0.9
    assert estimator.score(x) == pytest.approx(float(posterior.elbo.sum()) / x.size, rel=1e-4)


@pytest.fixture(scope="module")
def fitted(counts):
    return PLDS().fit(counts[0][:12])


def test_what_is_returned_lies_as_x_does(counts, fitted):
    x, estimator = counts[0][:12], fitted
    whole = estimator.transform(x)
    some = estimator.transform([x[0], x[1, :7], x[2]])
    assert [part.shape for part in some] == [(10, 2), (7, 2), (10, 2)]
    np.testing.assert_allclose(some[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(some[2], whole[2], atol=1e-6)
    back = estimator.inverse_transform(some)
    assert [part.shape for part in back] == [(10, 6), (7, 6), (10, 6)]
    assert estimator.transform(x.astype(np.float32)).dtype == np.float32
    missing = x.copy()
    missing[0, 3] = missing[1, 2, 4] = np.nan
    ragged = PLDS().fit([trial[: 6 + n % 5] for n, trial in enumerate(missing)])
    assert ragged.transform(missing[:3]).shape == (3, 10, 2)
    assert np.isfinite(ragged.transform(missing)).all()
    long = PLDS().fit(x.reshape(120, 6))
    assert long.transform(x[:9].reshape(90, 6)).shape == (90, 2)
    assert np.isfinite(long.transform(x.reshape(120, 6))).all()
    assert list(long.get_feature_names_out()) == ["latenttransformer0", "latenttransformer1"]


def test_kinds_of_trial_are_told_apart_in_a_pipeline_and_a_search(counts):
    x, kind = counts
    flat = FunctionTransformer(lambda latents: latents.reshape(len(latents), -1))
    pipeline = make_pipeline(PLDS(), flat, StandardScaler(), LogisticRegression())
    assert pipeline.fit(x[:20], kind[:20]).score(x[20:], kind[20:]) > 0.85
    search = GridSearchCV(PLDS(), {"dim": [1, 2]}, cv=2).fit(x[:12])
    assert search.best_estimator_.run_.model().latent_dim == search.best_params_["dim"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": "VAE"}, "use a model such as LinearDynamics"),
        ({"model": SequentialVAE, "learner": 3}, "learner must be a Learner"),
        ({"dim": 0}, "latent_dim must be at least 1"),
        ({"bin_width": 20}, "did you mean 0.02"),
        ({"val_fraction": 2.0}, "val_fraction must be"),
    ],
)
def test_wrong_setting_gets_one_sentence(settings, sentence, counts):
    with pytest.raises(InputError, match=sentence):
        LatentTransformer(**settings).fit(counts[0])


def test_wrong_x_gets_one_sentence(counts, fitted):
    x, estimator = counts[0][:8], fitted
    for wrong, sentence in [
        ([x[0], x[1][:, :3]], r"X\[1\] has shape \(10, 3\); give \(time, neuron\) with the 6"),
        ([x[0], "a"], r"X\[1\] does not hold numbers"),
        (x[:, :, :2], "X has 2 features, but LatentTransformer is expecting 6"),
    ]:
        with pytest.raises(InputError, match=sentence):
            estimator.transform(wrong)
    with pytest.raises(InputError, match="inverse_transform takes 2 columns"):
        estimator.inverse_transform(x)


def test_nonlinear_dynamics_are_learned_as_the_default_of_fit_says(counts, monkeypatch):
    monkeypatch.setattr("seqvae.learning.default.STEPS", 2)
    model = partial(NonlinearDynamics, dropout=0.3)
    run = LatentTransformer(model, dim=2, bin_width=0.02).fit(counts[0]).run_
    arguments = run.config["model"]["init_args"]
    assert (arguments["latent_dim"], arguments["dropout"]) == (2, 0.3)
    assert run.config["learner"]["init_args"]["refit"]
