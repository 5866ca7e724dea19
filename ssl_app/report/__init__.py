"""Pictures of results, made offline."""
