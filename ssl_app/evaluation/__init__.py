"""Arrays in, figures out: metrics, intervals, the verdict."""
