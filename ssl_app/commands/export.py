"""Write a run's network as a plain state dict, which torchvision loads without ssl-app.

A pretraining gives its backbone; a finetune run its backbone with the classifier: under the name of what ends
torchvision's network (`fc`, `classifier`), where the head is linear on the pooled features, else as `head`. Where
several classifiers predict together, their networks are `backbones.0`, ... and their heads `heads.0`, .... A JSON
file beside it says how the pixels are to be scaled, and which members there are.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_app import config, runs
from ssl_app.config import option
from ssl_app.errors import RunError, SettingsError
from ssl_app.runs import Result

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app export pretrain-20261121-101500
ssl-app export my-run --what classifier --output resnet18-scans.pt
"""
KINDS = (".safetensors", ".pt", ".pth")
ABOUT = ("backbone", "channels", "image_size", "classes", "layer", "pixels", "mirrored")
LAST = {
    "fc": ("resnet", "resnext", "wide_resnet", "regnet", "shufflenet", "googlenet", "inception"),
    "classifier": ("alexnet", "vgg", "densenet", "mobilenet", "efficientnet", "mnasnet", "convnext", "squeezenet"),
}


@dataclass(frozen=True)
class Settings:
    """Settings of an export."""

    run: str = option("", "finished pretrain or finetune run", argument=True)
    what: str = option(
        "auto", "backbone or classifier; auto: what the run made", choices=("auto", "backbone", "classifier")
    )
    output: Path | None = option(
        None,
        "file to write, not there yet, .safetensors or .pt; default: export.safetensors in the run",
        metavar="FILE",
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


def run(settings: Settings) -> Result:
    """Export a finished run."""
    import io

    import torch
    from safetensors.torch import save

    from ssl_app import checkpoints
    from ssl_app.training import initialization
    from ssl_app.transfer import trained

    started = time.monotonic()
    runs.check_output(settings.output, KINDS)
    if settings.output is not None:
        runs.check_output(settings.output.with_suffix(".json"))
    folder = runs.find_run(settings.out, settings.run)
    made = next((name for name in (trained.CLASSIFIER, initialization.BACKBONE) if (folder / name).is_file()), None)
    if made is None or not runs.finished(folder):
        raise RunError(f"run {folder} holds no finished network; expected a pretrain or finetune run that ended")
    if settings.what == "classifier" and made != trained.CLASSIFIER:
        raise SettingsError(f"run {folder} is a pretraining and has no classifier; type --what backbone")
    tensors, meta = checkpoints.read(folder / made)
    tensors.pop(trained.LABELED, None)  # no weights
    members = meta.get("members")
    if members is None or settings.what == "backbone":
        body = "backbone.body." if members is None else "backbones.0.body."
        state = {k.removeprefix(body): t for k, t in tensors.items() if k.startswith(body)}
    else:
        state = {k.replace(".body.", ".", 1) if k.startswith("backbones.") else k: t for k, t in tensors.items()}
    if made == trained.CLASSIFIER and settings.what != "backbone" and members is None:
        state |= _last_layer(tensors, meta)
    path = settings.output or folder / "export.safetensors"
    if path.suffix == ".safetensors":
        content = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    runs.write_bytes(path, content)
    about = {name: meta.get(name) for name in ABOUT}
    if members is not None and settings.what != "backbone":
        about["members"] = members
    runs.write_json(path.with_suffix(".json"), about)
    logger.info(
        f"{len(state)} tensors of {meta['backbone']}: {path}; pixels and classes: {path.with_suffix('.json')}"
    )
    more = {"export": str(path), "tensors": len(state)}
    return Result("export", folder, time.monotonic() - started, config.as_json(settings), more)


def _last_layer(tensors: "dict[str, torch.Tensor]", meta: dict[str, object]) -> "dict[str, torch.Tensor]":
    """The linear head under the name of torchvision's last layer, or `head` where the network has none."""
    network = str(meta["backbone"])
    name = next((last for last, families in LAST.items() if network.startswith(families)), "head")
    head = {k: t for k, t in tensors.items() if k.startswith("head.layers.")}
    if meta["head"] == "linear" and meta["layer"] is None:
        return {f"{name}.{k.split('.')[-1]}": t for k, t in head.items()}
    return {k.replace("head.layers.", "head."): t for k, t in head.items()}
