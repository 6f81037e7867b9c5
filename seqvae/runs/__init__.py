"""Run folders: what a fit leaves behind, and how another fit begins from it."""

from seqvae.runs.beginning import ModelFactory as ModelFactory
from seqvae.runs.beginning import begin as begin
from seqvae.runs.beginning import build_model as build_model
from seqvae.runs.ensemble import Ensemble as Ensemble
from seqvae.runs.folder import FitFolder as FitFolder
from seqvae.runs.memory import FitInMemory as FitInMemory
from seqvae.runs.origin import Origin as Origin
from seqvae.runs.recipe import Recipe as Recipe
from seqvae.runs.run import Run as Run
from seqvae.runs.stream import Stream as Stream
