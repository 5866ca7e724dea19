"""Serve MLflow's pages over the runs of --out, and print addresses: a sweep's curves and trials, all runs."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from ssl_app.config import option
from ssl_app.errors import Fix, RunError, Set, SettingsError, UserError
from ssl_app.runs import OUT

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app ui
ssl-app ui --out /data/ssl-runs --port 5001
"""

PORT, HOST = 5000, "127.0.0.1"
ADDRESS = f"http://{HOST}:{PORT}"  # where the pages are, unless the user says otherwise
STARTS_WITHIN = 180.0  # seconds; 17 were measured on two busy cores
STOPS_WITHIN = 10.0
AGAIN = Fix("type the same again")


@dataclass(frozen=True)
class Settings:
    """What to show, and where."""

    out: Path = option(OUT, "folder of the runs, with mlflow.db in it", metavar="DIR")
    port: int = option(PORT, "port on this machine; 0 takes a free one", at_least=0, at_most=65535)
    host: str = option(HOST, "address to listen on; others than this machine's have no password", metavar="HOST")
    open: bool = option(False, "open the page in a browser")


def run(settings: Settings) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal. Raises RunError where there is nothing to show."""
    database = settings.out / "mlflow.db"
    if not database.is_file():
        raise RunError(
            f"{settings.out} holds no mlflow.db",
            fix=(Fix("type ssl-app pretrain first"), Fix("--out with the folder of your runs")),
        )
    logger.info(f"starting MLflow on {database}; this takes a few seconds")
    with _until_told_to_stop(), serve(settings.out, settings.port, settings.host) as server:
        from ssl_app.tracking.pages import pages_of

        pages = pages_of(settings.out) or [("no runs yet", "")]
        for title, path in pages:
            logger.info(f"{title}: {server.address}/{path}")
        logger.info("Ctrl-C ends it")
        if settings.open:
            webbrowser.open(f"{server.address}/{pages[0][1]}")
        server.wait()


@dataclass(frozen=True)
class Server:
    """An MLflow server of ours."""

    address: str
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]

    def wait(self) -> None:
        """Until it ends, which it does not by itself. Raises UserError with its last line."""
        self.process.wait()
        raise UserError(f"MLflow's server ended by itself ({last_line(self.log)})", fix=AGAIN)


@contextmanager
def serve(out: Path, port: int, host: str = "127.0.0.1") -> Iterator[Server]:
    """An MLflow server on the database of `out`, answering, and gone with all its children afterwards.

    Raises SettingsError for a port or an address that cannot be had, UserError where the server ends at its start.
    """
    from ssl_app.tracking.store import local_store

    port = free_port(host, port)
    out = out.absolute()
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", local_store(out).uri]
    command += ["--default-artifact-root", (out / "artifacts").as_uri(), "--no-serve-artifacts"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes for jobs that ssl-app does not have
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env=os.environ | quiet,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own: it ends as one, and a Ctrl-C reaches us first
        )
        try:
            with outlived_by_none(process.pid):
                local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
                address = f"http://{f'[{local}]' if ':' in local else local}:{port}"
                server = Server(address, process, log)
                _wait_for(server)
                yield server
        finally:
            _end(process)


# reads until the one who writes is gone, however it ended; then ends the group
WATCH = f"""
import os, signal, sys, time
sys.stdin.buffer.read()
for how, patience in ((signal.SIGTERM, {STOPS_WITHIN}), (signal.SIGKILL, 0)):
    os.killpg(int(sys.argv[1]), how)
    time.sleep(patience)
"""


@contextmanager
def outlived_by_none(group: int) -> Iterator[None]:
    """End a group of processes where this one is killed inside, which lets it end nothing itself."""
    words = [sys.executable, "-I", "-S", "-c", WATCH, str(group)]
    null = subprocess.DEVNULL
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True) as watch:
        try:
            yield
        finally:
            watch.kill()


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises SettingsError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            return found
    except socket.gaierror as error:
        raise SettingsError(
            f"--host is '{host}', which is no address here", expected="127.0.0.1 or 0.0.0.0"
        ) from error
    except PermissionError as error:
        raise SettingsError(f"port {port} is not allowed to you", fix=Set("port", 5001)) from error
    except OSError as error:
        other = port + 1 if port < 65535 else 5001
        raise SettingsError(f"port {port} of {host} is in use ({error.strerror})", fix=Set("port", other)) from error


def _wait_for(server: Server) -> None:
    """Until the server answers. Raises UserError with its last line where it ends instead."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy between us and ourselves
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise UserError(
                f"MLflow's server ended at its start ({last_line(server.log)})",
                fix=(Set("port", 5001), Fix("see --out")),
            )
        try:
            with direct.open(f"{server.address}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise UserError(f"MLflow's server did not answer in {STARTS_WITHIN:.0f} s ({last_line(server.log)})", fix=AGAIN)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its workers, kindly first."""
    for how, patience in ((signal.SIGTERM, STOPS_WITHIN), (signal.SIGKILL, STOPS_WITHIN)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)  # its group, which is named after it and may outlive it
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)


@contextmanager
def _until_told_to_stop() -> Iterator[None]:
    """Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed, end what is inside, quietly."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_line(log: IO[bytes]) -> str:
    """The last line of a log that says something."""
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"
