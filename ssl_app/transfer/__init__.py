"""Stage two: one file a transfer strategy."""
