"""What the registry reads of its members without importing them."""

import ast
from pathlib import Path

import pytest

import ssl_app
from ssl_app import registry

ROOT = Path(ssl_app.__file__).parent
MEMBERS = [
    (package, name)
    for package in ("commands", "pretext", "transfer.strategies", "models.backbones")
    for name in registry.names(package)
]


@pytest.mark.parametrize(("package", "name"), MEMBERS)
def test_the_first_line_is_that_of_the_docstring(package: str, name: str) -> None:
    path = ROOT / package.replace(".", "/") / f"{name.replace('-', '_')}.py"
    document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert document is not None
    assert registry.describe(package, name) == document.splitlines()[0]


@pytest.mark.parametrize("text", ["", "x = 1\n", "'''One line.\n\nMore.'''\n", '# a comment\n"""One line."""\n'])
def test_a_file_that_begins_otherwise_is_parsed(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    (tmp_path / "pretext").mkdir()
    (tmp_path / "pretext" / "own.py").write_text(text)
    assert registry.describe("pretext", "own") == ("One line." if "One" in text else "")
