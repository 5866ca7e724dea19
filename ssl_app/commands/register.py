"""Register a run's network in MLflow under a name, and give that version an alias.

`mlflow models serve` then answers an image's pixels with what `predict` writes, and others find the network by its
name and alias in place of a run.
"""

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from ssl_app import config, runs
from ssl_app.commands import EXPERIMENT
from ssl_app.config import option
from ssl_app.errors import RunError, SettingsError
from ssl_app.runs import Result

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app register finetune-20261121-101500 --name scans
ssl-app register my-run --name scans --alias champion
ssl-app register my-run --name scans --tracking-uri http://HOST:5000
"""
ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class Settings:
    """What to register, and as what."""

    run: str = option("", "finished pretrain or finetune run: its name, or its folder", argument=True)
    name: str | None = option(None, "name in the registry; it gets a new version each time", metavar="NAME")
    alias: str = option("champion", "what this version is, until another one is given the same alias", metavar="NAME")
    tracking_uri: str | None = option(
        None, "MLflow server to register it at; default: the store in --out", metavar="URI"
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


def run(settings: Settings) -> Result:
    """Register the network that a run ended with. Raises RunError for a run without one."""
    from ssl_app.tracking.registry import register
    from ssl_app.training.initialization import BACKBONE
    from ssl_app.transfer.served import network_of
    from ssl_app.transfer.trained import CLASSIFIER

    started = time.monotonic()
    name = _checked(settings)
    folder = runs.find_run(settings.out, settings.run)
    weights = next((folder / file for file in (CLASSIFIER, BACKBONE) if (folder / file).is_file()), None)
    if weights is None or not runs.finished(folder):
        raise RunError(f"run {folder} holds no finished network", expected="a pretrain or finetune run that ended")
    found = register(
        settings.out, settings.tracking_uri, EXPERIMENT, folder, network_of(weights), (name, settings.alias)
    )
    uri = f"models:/{name}@{settings.alias}"
    logger.info(f"{folder.name} is version {found.version} of {name} at {found.where}, alias {settings.alias}")
    serve = f"mlflow models serve --model-uri {quote(uri)} --env-manager local --port 5001"
    logger.info(f"to serve it, type MLFLOW_TRACKING_URI={quote(found.uri)} {serve}")
    more = {"name": name, "version": found.version, "alias": settings.alias, "model": uri, "where": found.where}
    return Result("register", folder, time.monotonic() - started, config.as_json(settings), more)


def _checked(settings: Settings) -> str:
    """The name, where name and alias can be such in MLflow. Raises SettingsError."""
    if settings.name is None:
        raise SettingsError("register needs a name for the network; type --name, such as --name scans")
    if not settings.name.strip() or re.search(r"[/:'\"]", settings.name):
        raise SettingsError(f"--name is '{settings.name}'; expected a name without / : and quotes")
    if not ALIAS.fullmatch(settings.alias):
        raise SettingsError(
            f"--alias is '{settings.alias}'; expected letters, digits, - and _, and neither latest nor v1, v2 ..."
        )
    return settings.name
