"""One file a kind of data that can be named."""
