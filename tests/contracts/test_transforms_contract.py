"""What every transform promises; members are found by walking the family's folder."""

from __future__ import annotations

import yaml
from walk import members

import seqvae.data.transforms
from seqvae.config import from_config, to_config
from seqvae.data.transforms import (
    DFF,
    Align,
    DropDuplicates,
    Rebin,
    ResampleBehavior,
    SelectNeurons,
    Smooth,
    Transform,
    ZScore,
)


def test_every_transform_is_written_to_a_config_and_read_back():
    examples = {
        "Align": Align([1.0], (-0.1, 0.2)), "DFF": DFF(), "DropDuplicates": DropDuplicates(),
        "Rebin": Rebin(0.02), "ResampleBehavior": ResampleBehavior(0.1),
        "SelectNeurons": SelectNeurons(min_rate=1.0), "Smooth": Smooth(0.05), "ZScore": ZScore(),
    }  # fmt: skip
    assert {member.__name__ for member in members(seqvae.data.transforms, Transform)} == set(
        examples
    )
    for example in examples.values():
        again = from_config(yaml.safe_load(yaml.safe_dump(to_config(example))), Transform)
        assert to_config(again) == to_config(example)
