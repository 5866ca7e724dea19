"""Help answers at once, lists every flag, and the README knows every verb."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_app import config, registry

VERBS = registry.names("commands")
HEAVY = (
    "torch",
    "numpy",
    "mlflow",
    "sklearn",
    "albumentations",
    "cv2",
    "pandas",
    "scipy",
    "matplotlib",
    "tqdm",
    "ray",
)
README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_every_flag_with_its_default(verb: str, ssl) -> None:
    answer = ssl(verb, "--help")
    assert answer.code == 0
    assert answer.err == ""
    words = answer.out.replace("[", " ").replace("]", " ").split()
    settings = importlib.import_module(f"ssl_app.commands.{verb}").Settings
    assert dataclasses.is_dataclass(settings)
    for field in config.fields(settings):
        assert field.help, f"{verb} {field.flag} has no help"
        shown = field.name.upper() if field.argument else field.flag
        assert any(word == shown or word.startswith(f"{shown}/") for word in words), shown
    assert "--json" in words
    assert "--recipe" in words
    assert "Examples:" in answer.out


def test_help_of_a_method_adds_its_own_flags(ssl) -> None:
    assert "--rotation-head" in ssl("pretrain", "--method", "rotnet", "--help").out
    assert "--rotation-head" not in ssl("finetune", "--help").out


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_of_the_program_lists_every_verb(words: tuple[str, ...], ssl) -> None:
    answer = ssl(*words)
    assert answer.code == 0
    assert answer.err == ""
    for verb in VERBS:
        assert f"  {verb} " in answer.out
        assert registry.describe("commands", verb)[:30] in answer.out


def test_version(ssl) -> None:
    assert ssl("--version").out.startswith("ssl-app, version ")


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help"], ["methods"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr))\n"
        "from ssl_app.cli import main\n"
        f"main({words!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "error"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "HEAVY []"


def test_readme_names_every_verb() -> None:
    text = README.read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"ssl-app {verb}" not in text] == []
