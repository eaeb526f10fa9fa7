"""The registry of semantic conventions says what is exported: all of it, and nothing else."""
