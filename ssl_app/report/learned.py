"""What a network has learned, as pictures: every kind that applies, into one folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ssl_app import registry
from ssl_app.errors import SettingsError
from ssl_app.report.pictures import Picture, Subject

logger = logging.getLogger(__name__)

PACKAGE = "report.pictures"


def kinds() -> list[str]:
    """Names of the kinds of pictures: the files of the package."""
    return registry.names(PACKAGE)


def draw(subject: Subject, folder: Path, requested: Sequence[str] | None = None) -> list[Path]:
    """Draw the pictures of a network into a folder, all kinds or those requested. -> the files.

    A kind that does not apply to the network is logged with its reason, in one line. Raises SettingsError for a
    kind or a layer that is not there.
    """
    found = [registry.find(PACKAGE, name) for name in requested or kinds()]
    for layer in subject.layers:
        subject.backbone.shape(layer)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, kind in zip(requested or kinds(), found, strict=True):
        picture: Picture = kind()
        try:
            files += picture.draw(subject, folder)
        except SettingsError as error:
            logger.info(error.notice.prefixed(f"no {name.replace('-', ' ')}: "))
    return files
