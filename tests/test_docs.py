"""The documents say what the program does: command lines parse, recipes fit, the example method trains."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from ssl_app import config, registry
from ssl_app.cli import Verb, main
from ssl_app.evaluation import verdict
from ssl_app.evaluation.intervals import Interval
from ssl_app.evaluation.labels_saved import LabelsSaved

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docker/*.md"))]
RECIPES = sorted(ROOT.glob("recipes/*.toml"))
START = re.compile(r"(?:.*\s)?(?:ssl-app|-m ssl_app)\s+(?=[a-z])")
SHELL = re.compile(r"\s*(?:#|\||>|&&|;).*$")


def code_lines(text: str) -> list[str]:
    """Lines of the code blocks of a page, fenced or indented; a backslash at the end joins the next."""
    lines, fenced = [], False
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


def commands() -> list[tuple[str, str]]:
    """(file, command line) of every use of ssl-app in the documents, the recipes and the Makefile."""
    found = [(path, line) for path in PAGES for line in code_lines(path.read_text(encoding="utf-8"))]
    for path in RECIPES:
        found += [
            (path, line.strip("# ")) for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"
        ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)/", "").replace("$(OUT)", "OUT")
    found += [(ROOT / "Makefile", line.strip()) for line in makefile.splitlines() if line.startswith("\tssl-app")]
    lines = [(path.name, START.sub("", SHELL.sub("", line), count=1)) for path, line in found if START.match(line)]
    return [(name, line) for name, line in lines if not line.startswith(("sh ", "up ", "build "))]


def example() -> str:
    """The method of docs/adding-a-method.md."""
    text = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
    return text.split("```python\n", 1)[1].split("```", 1)[0]


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the reader of the documents stands: in the repository, with the example method at hand."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "upside_down.py").write_text(example(), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda text: text[:60])
def test_every_command_line_parses(page: str, line: str) -> None:
    words = [word for word in shlex.split(line) if word not in ("--help", "-h")]
    assert words[0] in registry.names("commands"), f"{page}: {line}"
    verb = Verb(words[0])
    bare = len(shlex.split(line)) > len(words)  # --help needs no argument
    context: click.Context = verb.make_context(words[0], words[1:], resilient_parsing=bare)
    given = {name: value for name, value in context.params.items() if name not in ("recipe", "as_json")}
    if not bare:
        for settings in (verb.module.Settings, context.obj):
            if settings is not None:
                config.build(settings, given, {})  # raises where a value is of the wrong kind


def test_there_are_command_lines_of_every_verb() -> None:
    shown = {line.split()[0] for page, line in commands() if page == "README.md"}
    assert shown == set(registry.names("commands"))


def test_the_readme_quotes_the_verdict_as_it_is_printed() -> None:
    saved = LabelsSaved(1.0, 1.0, None, "at least", 32, None)
    evidence = verdict.Evidence("sela", 32, 0.719, 0.688, Interval(0.031, 0.003, 0.059, 3), 3, 1, saved, None)
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    quoted = " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))
    assert quoted == verdict.sentence(evidence)


@pytest.mark.parametrize("verb", ["pretrain", "sweep"])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_understood(path: Path, verb: str) -> None:
    recipe = config.load_recipe(path, verb, registry.names("commands"))
    module = Verb(verb).module
    joined = module.joined(recipe) if hasattr(module, "joined") else None
    kinds = [kind for kind in (module.Settings, joined) if kind is not None]
    config.refuse_unknown(recipe, {field.name for kind in kinds for field in config.fields(kind)}, path)
    built = [config.build(kind, {}, recipe) for kind in kinds]
    assert all(any(hasattr(settings, key) for settings in built) for key in recipe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_says_how_it_was_measured(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    for wanted in ("ssl-app pretrain --recipe recipes/", "# Data:", "# Hardware:", "# measured:", "# result ("):
        assert wanted in header, f"{path.name}: {wanted}"
    assert path.name in header
    assert set(tomllib.loads(text)) & {"pretrain", "sweep"}


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.usefixtures("documented")
def test_the_example_method_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--smoothing 0.1 --image-size 16 --epochs 1 --threads 1 --test-fraction 0.8 --tracking-uri none --json"
    words = ["pretrain", "--method", "upside_down:UpsideDown", "--out", str(tmp_path / "runs"), *flags.split()]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert Path(result["checkpoint"]).is_file()
    assert 0 < result["final"]["accuracy"] <= 1
