"""Backbones by name, heads, and weights of other tools."""
