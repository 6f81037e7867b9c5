"""Handwritten digits, the small picture set that comes with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.errors import InputError


@dataclass(frozen=True)
class Digits(RecordingSource):
    """1797 pictures of 8 x 8 pixels as one-bin trials of 64 channels.

    ``condition`` is the digit. [Alpaydin & Kaynak 1998, UCI repository; scikit-learn's load_digits]

    Attributes:
        threshold: grey level, in [0, 1], from which a pixel is 1, else 0; None keeps grey levels.
    """

    threshold: float | None = 0.5

    def load(self) -> Recording:
        """Read the pictures that scikit-learn ships."""
        from sklearn.datasets import load_digits

        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(f"threshold must be above 0 and at most 1, got {self.threshold:g}")
        digits = load_digits()
        pixels = digits.data[:, None, :] / 16
        if self.threshold is not None:
            pixels = pixels >= self.threshold
        return Recording(pixels, condition=digits.target, image_shape=(8, 8))
