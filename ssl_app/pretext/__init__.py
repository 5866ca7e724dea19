"""Stage one: one file a pretext method."""
