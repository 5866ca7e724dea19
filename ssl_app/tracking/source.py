"""Which version and which commit of ssl-app runs."""

import json
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import ssl_app

ROOT = Path(ssl_app.__file__).resolve().parents[1]


@cache
def source_of() -> tuple[str, str | None]:
    """Version, and commit where it is known: of a checkout, or as pip installed it from a repository."""
    try:
        found = distribution("ssl-app")
    except PackageNotFoundError:  # run from its sources alone
        return "unknown", _checked_out()
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    return found.version, _checked_out() or origin.get("vcs_info", {}).get("commit_id")


def _checked_out() -> str | None:
    """The commit of the checkout that the package lies in, if it is one: another project's is none of ours."""
    if not (ROOT / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return None
