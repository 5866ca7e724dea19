"""Pictures of what a network has learned: one file a kind, found by its name."""

from ssl_app.report.pictures.base import Picture, Subject

__all__ = ["Picture", "Subject"]
