"""Transfer strategies: one file a strategy."""
