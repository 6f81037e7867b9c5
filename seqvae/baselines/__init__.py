"""Baselines any model must beat: the mean rate, and smoothing with a GLM readout."""
