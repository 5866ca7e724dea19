"""List what can be named: methods, strategies, kinds of data and backbones, one line each."""

from dataclasses import dataclass
from pathlib import Path

from ssl_app import registry
from ssl_app.config import option
from ssl_app.runs import Result

EXAMPLES = """
ssl-app methods
ssl-app methods --json
"""
SECTIONS = {
    "pretext": "--method of pretrain",
    "transfer.strategies": "--strategy of finetune and sweep",
    "data.sources": "--data of all verbs",
}
OTHER_BACKBONES = {
    "alexnet": "torchvision's; conv1 to conv5 can be named by --layer; from 63 px",
    "resnet18": "torchvision's; resnet34, resnet50, vgg16_bn and the others alike",
    "NAME+sobel": "any of them on the image's gradients, as DeepCluster has it",
    "module:factory": "any network of your own",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the listing."""

    kind: str | None = option(None, "only these", choices=("methods", "strategies", "data", "backbones"))


def run(settings: Settings) -> Result:
    """Print the names with their first lines, on stdout: here the listing is the result."""
    kinds = dict(zip(SECTIONS, ("methods", "strategies", "data"), strict=True))
    found: dict[str, dict[str, str]] = {}
    for package, kind in kinds.items():
        found[kind] = {name: registry.describe(package, name) for name in registry.names(package)}
    ours = {name: registry.describe("models.backbones", name) for name in registry.names("models.backbones")}
    found["backbones"] = ours | OTHER_BACKBONES
    if settings.kind is not None:
        found = {settings.kind: found[settings.kind]}
    flags = {kind: SECTIONS[package] for package, kind in kinds.items()} | {"backbones": "--backbone"}
    for kind, entries in found.items():
        print(f"{kind} ({flags[kind]})")
        for name, line in entries.items():
            print(f"  {name:<20} {line}")
    return Result("methods", Path("."), 0.0, {}, dict(found))
