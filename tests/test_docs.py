"""The documents say what the program does: command lines parse, recipes fit, the examples run, lists are complete."""

import inspect
import json
import re
import shlex
import shutil
import struct
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from ssl_app import config, registry
from ssl_app.cli import Verb, main
from ssl_app.evaluation import verdict
from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Component
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


MODULES = ("upside_down", "pseudo_labels", "tiny_conv", "idx")  # the examples of docs/extending.md, in order


def examples() -> dict[str, str]:
    """The files of docs/extending.md by name: a method, a strategy, a backbone, a source."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = [block.split("```", 1)[0] for block in text.split("```python\n")[1:]]
    return dict(zip(MODULES, blocks, strict=True))


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the reader of the documents stands: in the repository, with the examples at hand."""
    (tmp_path / "modules").mkdir()
    for name, text in examples().items():
        (tmp_path / "modules" / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(ROOT)
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


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
    # chest X-rays
    table = [[0.0858586, 0.0337254, 0.057406], [0.067718, 0.0333436, 0.0718085], [0.0645599, 0.0282206, 0.0585171]]
    difference = Difference(np.array(table), Component(6.421286e-05, 529.0), Component(7.8221e-06, 2.0))
    saved = LabelsSaved(2.4837, 1.576, None, None, 32, None)
    inits = ("chest-sela", "chest-sela-seed1", "chest-sela-seed2")
    evidence = verdict.Evidence(inits, 32, 0.750406, 0.694722, difference, 1066, saved, 128, "auto")
    around = verdict.Around("chest", inits[0], True)
    found, why, commands = verdict.lines(evidence, around)
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    quoted = " ".join(line.removeprefix("> ") for line in lines if line.startswith("> "))
    typed = ", and then ".join(command.command(config.flag) for command in commands)
    assert quoted == " ".join([*found, f"{why}, type {typed}."])


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


def typed(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """result.json of a command line."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--threads", "1", "--precision", "fp32", "--tracking-uri", "none", "--json"])
    captured = capsys.readouterr()
    assert end.value.code == 0, captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


@pytest.mark.usefixtures("documented")
def test_the_example_method_and_backbone_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "--method", "upside_down:UpsideDown", "--smoothing", 0.1, "--backbone", "tiny_conv:TinyConv"]
    words += ["--image-size", 16, "--epochs", 1, "--test-fraction", 0.8, "--out", tmp_path / "runs"]
    result = typed(capsys, *words)
    assert Path(result["checkpoint"]).is_file()
    assert 0 < result["final"]["accuracy"] <= 1


@pytest.mark.usefixtures("documented", "narrow")
def test_the_example_strategy_trains_with_unlabeled_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--init", "none", "--strategy", "pseudo_labels:PseudoLabels", "--confidence", 0.8]
    words += ["--image-size", 16, "--per-class", 4, "--test-fraction", 0.8, "--steps", 4, "--out", tmp_path / "runs"]
    result = typed(capsys, *words)
    assert result["labels_used"] == 40
    assert result["unlabeled_used"] > 0


@pytest.mark.usefixtures("narrow")
def test_the_example_source_is_found_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ssl_app.data.sources as package

    copy = tmp_path / "package"
    shutil.copytree(registry.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "data" / "sources" / "idx.py").write_text(examples()["idx"], encoding="utf-8")
    monkeypatch.setattr(registry, "ROOT", copy)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(copy / "data" / "sources")])
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4s3I", b"\0\0\x08\x03", *images.shape) + images.tobytes())
    words = ["pretrain", "--data", path, "--image-size", 16, "--epochs", 1, "--batch-size", 8]
    result = typed(capsys, *words, "--out", tmp_path / "runs")
    sys.modules.pop("ssl_app.data.sources.idx", None)
    assert Path(result["checkpoint"]).is_file()


# counts and lists of the pages


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(page("README.md").splitlines()) <= 150


@pytest.mark.parametrize("method", registry.names("pretext"))
def test_every_method_is_on_the_pages_that_list_them(method: str) -> None:
    assert f"**`{method}`**" in page("docs/methods.md"), (
        f"docs/methods.md needs a paragraph that begins **`{method}`**"
    )
    for name in ("README.md", "docs/choose-a-method.md"):
        rows = [line for line in page(name).splitlines() if line.startswith("|")]
        assert any(f"`{method}`" in row for row in rows), f"{name} needs a row of `{method}`"


@pytest.mark.parametrize("method", registry.names("pretext"))
def test_the_table_of_defaults_is_the_methods_own(method: str) -> None:
    kind = registry.find("pretext", method)
    d, views = kind.defaults, kind.needs.views
    row = (
        f"| `{method}` | {d.epochs} | {d.batch_size} to {d.smallest_batch} | {d.optimizer} | {d.lr:g} "
        f"| {d.weight_decay:g} | {views} x {d.augment or 'own'} | {d.backbone} |"
    )
    assert row in page("docs/methods.md").splitlines(), f"docs/methods.md needs the row {row}"


def test_names_in_the_tables_of_extending_exist() -> None:
    from ssl_app.data.sources.base import Source
    from ssl_app.models.backbones import Network, TokenNetwork
    from ssl_app.pretext.base import Defaults, Pretext, SelfLabeling
    from ssl_app.training.task import Needs
    from ssl_app.transfer import fitting
    from ssl_app.transfer.draw import Draw
    from ssl_app.transfer.strategies.base import Budget, Strategy

    kinds = (Pretext, SelfLabeling, Defaults, Needs, Strategy, Draw, Budget, Network, TokenNetwork, Source, fitting)
    known = {name for kind in kinds for name in (*dir(kind), *getattr(kind, "__annotations__", {}))}
    known |= {name for kind in kinds for name in re.findall(r"self\.(\w+)", inspect.getsource(kind))}
    for line in page("docs/extending.md").splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([\w.]+)[(`]", line.split("|")[1]):
                assert name.split(".")[-1] in known, line
