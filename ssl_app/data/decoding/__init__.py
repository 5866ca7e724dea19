"""Decoders, one file a format, under one set of rules: what bytes mean, and how much they may unfold to."""
