"""One loop for whatever trains: tasks, optimization, checkpoints, processes, inference."""
