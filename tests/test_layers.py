"""Imports point down: the layers of docs/design.md, held over the syntax trees."""

import ast
from functools import cache
from pathlib import Path

import pytest

import ssl_app

ROOT = Path(ssl_app.__file__).parent

# A row may import rows below it, never one above or beside it; names within one set may meet.
ROWS: list[list[set[str]]] = [
    [{"cli", "__main__", "__init__"}],
    [{"commands"}],
    [{"pretraining"}, {"transfer"}],
    [{"report"}],
    [{"pretext"}, {"evaluation"}, {"tracking"}],
    [{"training"}],
    [{"data"}, {"models"}, {"clustering"}],
    [
        {
            "config",
            "registry",
            "errors",
            "foreign",
            "settings",
            "runs",
            "locks",
            "tables",
            "checkpoints",
            "console",
            "processor",
            "environment",
            "processes",
        }
    ],
]
PLACE = {name: (row, part) for row, parts in enumerate(ROWS) for part, names in enumerate(parts) for name in names}
LIGHT = ROWS[-1][0] - {"checkpoints"}  # whose contents are tensors
HEAVY = {
    "torch",
    "torchvision",
    "mlflow",
    "ray",
    "albumentations",
    "sklearn",
    "numpy",
    "cv2",
    "pandas",
    "matplotlib",
    "scipy",
}


@cache
def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@cache
def imports(path: Path, top_only: bool = False) -> set[str]:
    """Dotted names that a file imports; `top_only` leaves out those inside functions and TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body
    }
    found: set[str] = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def owner(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    row, part = PLACE[owner(path)]
    for name in imports(path):
        if not name.startswith("ssl_app."):
            continue
        target = name.split(".")[1]
        below_row, below_part = PLACE[target if target in PLACE else "__init__"]
        same = (row, part) == (below_row, below_part)
        assert same or below_row > row, f"{path.relative_to(ROOT)} imports {name}, which does not lie below it"


def test_every_file_has_a_place() -> None:
    assert {owner(path) for path in files()} <= set(PLACE)


@pytest.mark.parametrize("name", sorted(LIGHT | {"cli", "commands", "__init__"}))
def test_light_files_import_nothing_heavy(name: str) -> None:
    for path in files():
        if owner(path) == name:
            tops = {imported.split(".")[0] for imported in imports(path, top_only=True)}
            assert not tops & HEAVY, f"{path} imports {tops & HEAVY} at its top"


def test_some_packages_have_their_place() -> None:
    """MLflow is behind tracking; albumentations behind data, and the views that methods build of their own."""
    places = {
        "mlflow": ("tracking",),
        "albumentations": ("data/boxes.py", "data/operations.py", "data/transforms.py", "pretext/"),
        "ray": ("training/ray_cluster.py", "transfer/ray_workers.py"),
    }
    for package, homes in places.items():
        users = [p for p in files() if any(n.split(".")[0] == package for n in imports(p))]
        assert users
        assert all(str(user.relative_to(ROOT)).startswith(homes) for user in users), users
