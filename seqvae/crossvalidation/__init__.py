"""Bi-cross-validation: how many dimensions the data support, and which model deserves them."""

from seqvae.crossvalidation.choice import Choice as Choice
from seqvae.crossvalidation.choice import choose as choose
from seqvae.crossvalidation.gabriel import gabriel_errors as gabriel_errors
from seqvae.crossvalidation.result import CrossValidation as CrossValidation
