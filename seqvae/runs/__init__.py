"""Run folders: what a fit leaves behind, read and written."""
