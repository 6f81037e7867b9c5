from __future__ import annotations

from functools import partial

import pytest
import torch

from seqvae import FLDS, VAE, InputError, fit
from seqvae.config import from_config, to_config
from seqvae.learning import GradientLearner, Learner
from tiny import SVAE, tiny_data, tiny_learner, weights

SMALL = {"SequentialVAE": SVAE, "VAE": partial(VAE, latent_dim=2, factor_dim=4),
         "FLDS": partial(FLDS, latent_dim=2, decoder_dims=(4,))}  # fmt: skip


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


def is_frozen(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "parts", [("encoder",), ("observation.readout.weight",), ("decoder", "encoder.head")]
)
def test_frozen_parameters_stay_and_all_others_move(tmp_path, name, parts):
    """Neither a gradient nor weight decay moves them."""
    if name == "FLDS" and "encoder.head" in parts:
        parts = ("decoder", "encoder.layers")
    data = tiny_data()
    run = fit(data, SMALL[name], tiny_learner(3, freeze=parts, select="val/elbo"),
              run_dir=str(tmp_path / "r"))  # fmt: skip
    start = fit(data, SMALL[name], tiny_learner(1, trainer={"limit_train_batches": 1}),
                run_dir=str(tmp_path / "s")).model()  # fmt: skip
    learned = run.model()
    assert all(parameter.requires_grad for parameter in learned.parameters() if parameter.numel())
    fresh = dict(start.named_parameters())
    moved = {
        key for key, value in learned.named_parameters()
        if value.numel() and not is_frozen(key, parts) and torch.equal(value, fresh[key])
    }  # fmt: skip
    assert not moved
    again = fit(data, SMALL[name], tiny_learner(1, freeze=parts, select="val/elbo"),
                run_dir=str(tmp_path / "t")).model()  # fmt: skip
    for key, value in again.named_parameters():
        if is_frozen(key, parts):
            assert torch.equal(value, dict(learned.named_parameters())[key]), key


def test_frozen_fit_resumes_as_if_it_had_not_stopped(tmp_path):
    data = tiny_data()
    whole = fit(data, SVAE, tiny_learner(4, freeze=("encoder",)), run_dir=str(tmp_path / "w"))
    fit(data, SVAE, tiny_learner(2, freeze=("encoder",)), run_dir=str(tmp_path / "r"))
    resumed = fit(data, SVAE, tiny_learner(4, freeze=("encoder",)), run_dir=str(tmp_path / "r"),
                  resume=True)  # fmt: skip
    ours, theirs = (weights(run.files.weights)["state_dict"] for run in (whole, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (("encodr",), "freeze: the model has no part 'encodr'; did you mean 'encoder'"),
        (("encoder.gro",), "no part 'encoder.gro'; did you mean 'encoder.gru'"),
        (("enc",), "no part 'enc'"),
    ],
)
def test_part_that_is_not_there_is_refused_before_anything_is_written(tmp_path, parts, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(tiny_data(), SVAE, tiny_learner(1, freeze=parts), run_dir=str(tmp_path / "r"))
    assert not (tmp_path / "r" / "config.yaml").exists()


def test_freezing_everything_is_refused():
    data = tiny_data()
    data.setup()
    model = SMALL["VAE"](data.spec)
    model.initialize(data)
    names = tuple({name.partition(".")[0] for name, _ in model.named_parameters()})
    with pytest.raises(InputError, match="leaves no parameter to learn"):
        tiny_learner(1, freeze=names).check(model, data)


def test_frozen_parts_stand_in_the_config():
    learner = GradientLearner(freeze=("encoder", "prior"))
    tree = to_config(learner)
    assert tree["init_args"]["freeze"] == ["encoder", "prior"]
    assert from_config(tree, Learner).freeze == ("encoder", "prior")


def test_learner_that_freezes_nothing_is_written_as_before_there_was_freezing():
    """So that runs and cells of a cross-validation keep their hash, key and seed."""
    assert "freeze" not in to_config(GradientLearner())["init_args"]
