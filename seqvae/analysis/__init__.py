"""What a fitted model says of data: posterior, scores, diagnosis, audit."""

from seqvae.analysis.gradient_noise import GradientNoise as GradientNoise
from seqvae.analysis.gradient_noise import measure_gradient_noise as measure_gradient_noise
from seqvae.analysis.refinement import Refinement as Refinement
from seqvae.analysis.refinement import refine as refine
