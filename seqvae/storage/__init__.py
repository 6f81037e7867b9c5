"""Files: whole or not at all, read without running anything, held by one process at a time."""
