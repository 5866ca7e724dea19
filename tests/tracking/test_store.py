import multiprocessing
import os
import sqlite3
import time
from pathlib import Path

import pytest

from ssl_app.config import flag
from ssl_app.errors import RunError, SettingsError
from ssl_app.tracking import open_tracker
from ssl_app.tracking.store import make_database, remote_store, without_password


def start_one(out: Path, name: str, failures: "multiprocessing.Queue[str]") -> None:
    try:
        run = open_tracker(out, None, "digits").start(name, out / name, {})
        for epoch in range(20):
            run.metrics({"loss": 1.0}, epoch)
        run.finish()
        failures.put("")
    except BaseException as error:
        failures.put(repr(error))


@pytest.mark.slow
def test_two_that_start_at_once_on_no_database_both_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    both = [context.Process(target=start_one, args=(tmp_path, name, told)) for name in ("a", "b")]
    for each in both:
        each.start()
    assert [told.get(timeout=120), told.get(timeout=120)] == ["", ""]
    for each in both:
        each.join()
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (40,)
    connection.close()
    assert list(tmp_path.glob(".mlflow-*")) == []


def test_a_new_database_is_whole_and_lets_readers_in(template: Path) -> None:
    connection = sqlite3.connect(template)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("SELECT name FROM experiments").fetchall() == [("Default",)]
    connection.close()
    assert [path.name for path in template.parent.iterdir()] == ["mlflow.db"]


def test_a_kill_while_the_database_is_made_leaves_nothing_to_trip_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = tmp_path / ".mlflow-dead.db", tmp_path / ".mlflow-alive.db"
    for half_made in (old, young):
        half_made.write_bytes(b"SQLite format 3\0 and no more")
    os.utime(old, (time.time() - 7200,) * 2)
    monkeypatch.setattr("ssl_app.tracking.store._migrate", lambda draft, artifacts: draft.write_bytes(b"whole"))
    make_database(tmp_path / "mlflow.db", "file:///artifacts", ())
    assert (tmp_path / "mlflow.db").read_bytes() == b"whole"
    assert not old.exists()
    assert young.exists()  # another process may be at it


def test_the_first_of_two_databases_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"

    def slower(draft: Path, artifacts: str) -> None:
        draft.write_bytes(b"second")
        path.write_bytes(b"first")

    monkeypatch.setattr("ssl_app.tracking.store._migrate", slower)
    make_database(path, "file:///artifacts", ())
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("this is not a database, whatever its name may say" * 10)
    with pytest.raises(RunError) as refusal:
        open_tracker(tmp_path, None, "digits")
    assert str(refusal.value) == (
        f"{path} cannot be read as a database (file is not a database); "
        "move it away, or type another out, or tracking_uri none"
    )


@pytest.mark.parametrize("content", ["", "CREATE TABLE experiments (id INTEGER)"])
def test_half_a_database_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.executescript(content)
    connection.close()
    with pytest.raises(RunError) as refusal:
        open_tracker(tmp_path, None, "digits")
    assert refusal.value.sentence(flag) == (
        f"{path} is not a whole MLflow database; move it away, or type another --out, or --tracking-uri none"
    )


def test_a_database_of_another_mlflow_names_the_command(out: Path) -> None:
    connection = sqlite3.connect(out / "mlflow.db")
    connection.execute("UPDATE alembic_version SET version_num = 'c48cb773bb87'")
    connection.commit()
    connection.close()
    with pytest.raises(RunError, match=rf"type mlflow db upgrade sqlite:///{out}/mlflow.db$"):
        open_tracker(out, None, "digits")


def test_runs_are_kept_in_out_and_sent_on_to_what_is_typed_or_else_to_the_environments(
    out: Path, remote: str, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = f"{out / 'mlflow.db'} (ssl-app ui shows it)"
    assert open_tracker(out, None, "digits").where == local
    assert open_tracker(out, f"sqlite:///{out}/mlflow.db", "digits").where == local
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    assert open_tracker(out, None, "digits").where == f"{local}, sent on to {nobody}"
    assert open_tracker(out, remote, "digits").where == f"{local}, sent on to {remote}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert open_tracker(out, None, "digits").where == "nowhere"


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "htp://host", "localhost:5000", "http:/x"])
def test_a_uri_that_cannot_be_one_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        remote_store(tmp_path, uri)
    assert refusal.value.sentence(flag) == (
        f"the tracking URI is '{uri}'; expected http://HOST:PORT, sqlite:///FILE.db, another database's URI, "
        "or none; type another --tracking-uri"
    )


def test_a_database_without_its_driver_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        open_tracker(tmp_path, "postgresql://me:secret@localhost/x", "digits")
    assert str(refusal.value).startswith("postgresql://localhost/x needs a driver (")
    assert "type pip install psycopg" in str(refusal.value)


def test_another_stores_file_that_is_no_database_is_refused_at_once(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_text("this is not a database, whatever its name may say" * 10)
    with pytest.raises(RunError) as refusal:
        open_tracker(out, f"sqlite:///{path}", "digits")
    assert refusal.value.sentence(flag) == (
        f"{path} cannot be read as a database (file is not a database); move it away, or type another --tracking-uri"
    )


def test_passwords_are_not_shown() -> None:
    assert without_password("https://me:secret@host:5000/a?token=1") == "https://host:5000/a"
    assert without_password("http://host:5000") == "http://host:5000"
