"""What a fitted model says of data: posterior, scores, diagnosis, audit."""

from seqvae.analysis.conversions import to_pynapple as to_pynapple
from seqvae.analysis.conversions import to_table as to_table
from seqvae.analysis.gradient_noise import GradientNoise as GradientNoise
from seqvae.analysis.gradient_noise import measure_gradient_noise as measure_gradient_noise
from seqvae.analysis.refinement import Refinement as Refinement
from seqvae.analysis.refinement import refine as refine
