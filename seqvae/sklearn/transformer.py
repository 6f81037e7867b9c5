"""A model of the project as a scikit-learn transformer."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from seqvae.analysis.posterior import deterministic
from seqvae.compute import noise
from seqvae.config import to_config
from seqvae.data import NeuralData, Recording
from seqvae.distributions.kinds import kind_of
from seqvae.errors import InputError
from seqvae.learning import GradientLearner, Learner, LearnerFactory, completed_fit, learner_of
from seqvae.learning.learner import check_pair, without_progress
from seqvae.learning.observers import Alarms, HistoryRows
from seqvae.learning.unread import unread
from seqvae.models import FactorAnalysis, Model
from seqvae.observations import Gaussian
from seqvae.runs import FitInMemory, ModelFactory, Run, begin
from seqvae.sklearn.layout import Layout, Trials, as_trials, is_rows, padded
from seqvae.verbs.infer import infer

if TYPE_CHECKING:
    _Model: TypeAlias = ModelFactory | None
    _Learner: TypeAlias = Learner | LearnerFactory | None
    _Number: TypeAlias = float | None
    _Size: TypeAlias = int | None
    _Count: TypeAlias = int
    _Seed: TypeAlias = int | np.random.RandomState | None
else:  # a setting is looked at by ``fit``, as scikit-learn wants it
    _Model = _Learner = _Number = _Size = _Count = _Seed = Any

_PATHS = ("latents", "latent")
"""Names of latents that have a value in each bin."""


class LatentTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Latents of neural activity, by any model of the project.

    ``X`` is (trial, time, neuron), a list with one (time, neuron) array for each trial, or has two
    axes: without a ``bin_width`` its rows are samples on their own, with one they are successive
    bins of one recording, in their order. NaN is missing. What ``transform`` returns lies as X
    does, with latents for neurons (of a ``SequentialVAE`` its factors). Whole numbers from 0 on are
    counts (Poisson), all else is real (Gaussian), unless the model names its observation.

    Args:
        model: class of a model, or ``functools.partial`` of one with its settings; None:
            ``FactorAnalysis``.
        dim: number of latents (of a ``SequentialVAE`` factors); None: as the model says.
        learner: how it is learned; None: the model's own, with its defaults; of a
            ``NonlinearDynamics`` that, and what is not said of it, is as ``default_fit`` says.
        bin_width: seconds per bin.
        val_fraction: share of the trials that training is validated on; None: a fifth for a model
            that is learned by gradients, else none.
        num_samples: posterior samples of models whose means are not known in closed form.
        random_state: seed of all that is random.

    Attributes:
        run_: the fitted run, in memory, which ``seqvae.evaluate``, ``run_.plot`` and so on take.
        n_features_in_: neurons.
    """

    run_: Any
    n_features_in_: int
    _n_features_out: int
    _variable: str
    _is_factors: bool
    _precision: torch.dtype

    def __init__(
        self,
        model: _Model = None,
        *,
        dim: _Size = None,
        learner: _Learner = None,
        bin_width: _Number = None,
        val_fraction: _Number = None,
        num_samples: _Count = 20,
        random_state: _Seed = 0,
    ) -> None:
        self.model = model
        self.dim = dim
        self.learner = learner
        self.bin_width = bin_width
        self.val_fraction = val_fraction
        self.num_samples = num_samples
        self.random_state = random_state

    def fit(self, X: Trials, y: Any = None) -> LatentTransformer:
        """Learn the model.

        Args:
            X: activity; see the class.
            y: not used.

        Raises:
            InputError: a ``ValueError`` in one sentence, for whatever the user can mend.
        """
        activity, _ = self._laid_out(X, reset=True)
        factory = self._factory(activity)
        learner = learner_of(self.learner, _class_of(factory))
        share = self.val_fraction
        if share is None:
            share = 0.2 if isinstance(learner, GradientLearner) else 0.0
        data = NeuralData(self._recording(activity), val_fraction=share)
        if (suited := completed_fit(factory, data, self.learner, scores_others=True)) is not None:
            factory, learner = suited
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        self.run_ = _learned(data, factory, without_progress(learner), seed=int(seed))
        fitted = self.run_.model()
        with deterministic(fitted, 0):
            output = fitted(data.batch([0]).to(fitted.null_counts.device), 1)
        factors, names = output.factors, [name for name in output.latents if name in _PATHS]
        has_path = fitted.dimension_argument == "latent_dim" and bool(names)
        path = output.latents[names[0]].sample if has_path else factors
        self._variable = f"{names[0]}_mean" if has_path else "factors"
        self._is_factors = torch.equal(path, factors)
        self._precision, self._n_features_out = path.dtype, path.shape[-1]
        return self

    def transform(self, X: Trials) -> Any:
        """Return the posterior mean of the latents, or factors, laid out as X is."""
        check_is_fitted(self)
        activity, layout = self._laid_out(X)
        posterior = self._infer(activity, merged=layout.kind == "recording")
        values = posterior[self._variable].values
        return layout.like_x(values if "trial" in posterior.dims else values[None])

    def inverse_transform(self, X: Trials) -> Any:
        """Return the activity that latents stand for: counts per bin, or data units.

        It is that at these very latents; the expected activity of a trial, over all that its
        latents may be, is ``rates`` of ``seqvae.infer``.

        Args:
            X: latents, laid out as ``transform`` returns them.

        Raises:
            InputError: for another number of latents.
        """
        check_is_fitted(self)
        if is_rows(X):
            rows = np.asarray(X, dtype=np.float64)
            trials, layout = rows[None], Layout("recording", (len(rows),), rows.dtype)
        else:
            parts, kind = as_trials(X)
            trials = padded(parts)
            layout = Layout(kind, tuple(map(len, parts)), trials.dtype)
        if trials.ndim != 3 or trials.shape[-1] != self._n_features_out:
            raise InputError(
                f"X has shape {np.shape(X)}; inverse_transform takes {self._n_features_out} columns"
            )
        model = self.run_.model()
        with deterministic(model, 0):
            batch = self.run_.data().batch([0]).to(model.null_counts.device)
            path = torch.from_numpy(trials).to(batch.target.device, self._precision)[None]
            emission = (
                model.observation(path)
                if self._is_factors
                else model.emission_given({self._variable.removesuffix("_mean"): path}, batch)
            )
        return layout.like_x(emission.mean[0].double().cpu().numpy())

    def score(self, X: Trials, y: Any = None) -> float:
        """Return the evidence lower bound of X in nats per entry: higher is better.

        It bounds log p(X), so that of trials that were not learned from it may choose ``dim``.

        Args:
            X: activity.
            y: not used.

        Raises:
            InputError: for a model whose posterior is a point.
        """
        check_is_fitted(self)
        activity, _ = self._laid_out(X)
        posterior = self._infer(activity, merged=False)
        if "elbo" not in posterior:
            raise InputError(
                "score: the posterior of this model is a point, so it has no bound; give "
                "GridSearchCV a scoring of your own"
            )
        return float(posterior["elbo"].sum()) / int(np.isfinite(activity).sum())

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that NaN is allowed, and that precision is kept."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _infer(self, activity: np.ndarray, *, merged: bool) -> Any:
        with warnings.catch_warnings():  # new trials may hold neurons that are silent in them
            warnings.filterwarnings("ignore", message=".*neuron", category=UserWarning)
            return infer(
                self.run_,
                self._recording(activity),
                num_samples=self.num_samples,
                merged=merged,
            )

    def _recording(self, activity: np.ndarray) -> Recording:
        return Recording(activity, None if self.bin_width is None else float(self.bin_width))

    def _laid_out(self, x: Trials, *, reset: bool = False) -> tuple[np.ndarray, Layout]:
        """Return X as (trial, time, neuron), and how it lay."""
        if is_rows(x):
            rows = validate_data(
                self, x, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan",
                ensure_min_samples=2 if reset else 1,
            )  # fmt: skip
            if self.bin_width is None:
                return rows[:, None], Layout("rows", (1,) * len(rows), rows.dtype)
            return rows[None], Layout("recording", (len(rows),), rows.dtype)
        trials, kind = as_trials(x)
        num_neurons = trials[0].shape[1]
        if reset:
            self.n_features_in_ = num_neurons
        elif num_neurons != self.n_features_in_:
            raise InputError(
                f"X has {num_neurons} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        dtype = np.result_type(np.float32, getattr(x, "dtype", np.float64))
        return padded(trials), Layout(kind, tuple(map(len, trials)), dtype)

    def _factory(self, activity: np.ndarray) -> ModelFactory:
        """Return the factory of the model, with the size, and with an observation for real data."""
        factory = FactorAnalysis if self.model is None else self.model
        argument = _class_of(factory).dimension_argument
        settings: dict[str, Any] = {} if self.dim is None else {argument: self.dim}
        is_counts = kind_of([activity]).counts_events
        if not is_counts and "observation" not in getattr(factory, "keywords", {}):
            settings["observation"] = Gaussian
        return partial(factory, **settings) if settings else factory


def _learned(data: NeuralData, model: ModelFactory, learner: Learner, *, seed: int) -> Run:
    """Fit in memory as ``seqvae.fit`` does, but without telling what may be wrong with the fit.

    A grid search fits many models that are meant to be worse than the best one; ``evaluate`` of
    ``run_`` gives the advice.
    """
    data.setup()
    data.trials("train")
    data.seed = seed
    config = to_config({"seed": seed, "data": data, "model": model, "learner": learner})
    rows = HistoryRows()
    with noise.apart(seed):
        begun = begin(model, data, seed=seed)
        check_pair(learner, begun)
        learner.check(begun, data)
        for sentence in unread(begun, learner, data):
            warnings.warn(sentence, stacklevel=3)
        learner.learn(begun, data, observers=(rows, Alarms()), config=config)
    return FitInMemory().run(begun, data, config=config, origin=None, history=rows.rows)


def _class_of(factory: object) -> type[Model]:
    """Return the class of a factory.

    Raises:
        InputError: for anything but a class or a partial of one.
    """
    cls = factory.func if isinstance(factory, partial) else factory
    if not isinstance(cls, type) or not issubclass(cls, Model):
        raise InputError(
            f"model: use a model such as LinearDynamics, or functools.partial of one, got {cls!r}"
        )
    return cls
