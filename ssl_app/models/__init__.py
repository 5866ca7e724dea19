"""Backbones by name, heads, and the closed-form linear classifier."""
