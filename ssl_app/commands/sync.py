"""Send an MLflow server what it lacks of the runs in --out: runs, metrics, files and views, each once.

A run with --tracking-uri sends itself while it works. This verb sends what the server missed; a second time it finds
nothing to send.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from ssl_app import config
from ssl_app.config import option
from ssl_app.errors import Fix, RunError
from ssl_app.runs import OUT, Result

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app sync
ssl-app sync --tracking-uri http://HOST:5000
ssl-app sync --out /data/ssl-runs --tracking-uri sqlite:////data/all-runs.db
"""


@dataclass(frozen=True)
class Settings:
    """What to send, and where."""

    out: Path = option(OUT, "folder of the runs, with mlflow.db in it", metavar="DIR")
    tracking_uri: str | None = option(
        None, "MLflow server to send all runs to; default: the one that each run was given", metavar="URI"
    )


def run(settings: Settings) -> Result:
    """Send what is missing. Raises RunError where a server does not take all of it."""
    from ssl_app.tracking.sync import sync

    started = time.monotonic()
    outcomes = sync(settings.out, settings.tracking_uri)
    for outcome in outcomes:
        for line in outcome.sent.refused:
            logger.warning(line)
        if outcome.failure is None or outcome.sent.changes:
            logger.info(f"{outcome.where}: {outcome.sent}")
        for line in outcome.sent.pages:
            logger.info(line)
    if not outcomes:
        logger.info(f"{settings.out} holds no runs: nothing to send")
    failed = [f"{outcome.where} takes nothing now ({outcome.failure})" for outcome in outcomes if outcome.failure]
    if failed:
        raise RunError("; ".join(failed), fix=Fix("type the same again when it answers"))
    sent = [{"where": outcome.where, **outcome.sent.counts()} for outcome in outcomes]
    return Result("sync", settings.out, time.monotonic() - started, config.as_json(settings), {"sent": sent})
