"""The least value at which a score of counts is still finite."""

LEAST_COUNT = 1e-9
"""Mean counts per bin below which no prediction goes: a neuron that is silent stays finite."""
