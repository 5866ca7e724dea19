"""One loop for whatever trains: optimisation, checkpoints, processes, health."""
