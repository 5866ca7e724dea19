"""One file a verb: Settings and run(settings) -> result."""
