"""A panel of estimators of how many latents there are, one a file, beside cross-validation."""
