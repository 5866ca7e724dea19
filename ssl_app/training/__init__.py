"""One loop for whatever trains: optimization, checkpoints, processes, health."""
