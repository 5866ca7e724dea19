"""Write a run's network as a plain state dict, which torchvision loads without ssl-app, or as an ONNX file.

A pretraining gives its backbone; a finetune run its backbone with the classifier: under the name of what ends
torchvision's network (`fc`, `classifier.1`), where both are one linear layer, else as `head`. Where several
classifiers predict together, their networks are `backbones.0`, ... and their heads `heads.0`, .... A JSON file beside
it says how the pixels are to be scaled, and which members there are. An ONNX file has both inside.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from ssl_app import config, locks, runs
from ssl_app.config import option
from ssl_app.errors import Fix, RunError, Set, SettingsError
from ssl_app.runs import Result

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app export pretrain-20261121-101500
ssl-app export my-run --what classifier --output resnet18-scans.pt
ssl-app export my-run --channels 3
ssl-app export my-run --format onnx
"""
KINDS = {"weights": (".safetensors", ".pt", ".pth"), "onnx": (".onnx",)}
ABOUT = ("backbone", "channels", "image_size", "classes", "layer", "pixels", "mirrored", "temperature")


@dataclass(frozen=True)
class Settings:
    """Settings of an export."""

    run: str = option("", "finished pretrain or finetune run", argument=True)
    what: str = option(
        "auto", "backbone or classifier; auto: what the run made", choices=("auto", "backbone", "classifier")
    )
    format: Literal["weights", "onnx"] = option(
        "weights", "weights: a state dict; onnx: a graph from pixel values to probabilities or features"
    )
    channels: int | None = option(
        None,
        "input channels of the weights: 3 lets stock networks take those of a gray run, with the same outputs on "
        "gray; default: the run's",
        at_least=1,
    )
    output: Path | None = option(
        None,
        "file to write, not there yet, .safetensors, .pt or .onnx; default: in the run, export.safetensors or "
        "network.onnx",
        metavar="FILE",
    )
    out: Path = option(runs.OUT, "folder of the runs", metavar="DIR")


def run(settings: Settings) -> Result:
    """Export a finished run."""
    from ssl_app import checkpoints
    from ssl_app.training import initialization
    from ssl_app.transfer import trained

    started = time.monotonic()
    runs.check_output(settings.output, KINDS[settings.format])
    if settings.output is not None:
        _refuse_others_json(settings.output)
    folder = runs.find_run(settings.out, settings.run)
    made = next((name for name in (trained.CLASSIFIER, initialization.BACKBONE) if (folder / name).is_file()), None)
    if not runs.finished(folder):
        locks.refuse_at_work(folder)
    if made is None or not runs.finished(folder):
        raise RunError(f"run {folder} holds no finished network; expected a pretrain or finetune run that ended")
    if settings.what == "classifier" and made != trained.CLASSIFIER:
        raise SettingsError(f"run {folder} is a pretraining and has no classifier; type --what backbone")
    what = "classifier" if made == trained.CLASSIFIER and settings.what != "backbone" else "backbone"
    tensors, meta = checkpoints.read(folder / made)
    tensors.pop(trained.LABELED, None)  # no weights
    about = {name: meta.get(name) for name in ABOUT}
    if "members" in meta and what == "classifier":
        about["members"] = meta["members"]
    if settings.format == "onnx":
        path = settings.output or folder / "network.onnx"  # its JSON is not that of export.safetensors
        more = _onnx(settings, path, what, about)
    else:
        path = settings.output or folder / "export.safetensors"
        more = _weights(settings, path, _state(tensors, meta, what), about)
    runs.write_json(path.with_suffix(".json"), about)
    logger.info(f"pixels and classes: {path.with_suffix('.json')}")
    more |= {"export": str(path)}
    return Result("export", folder, time.monotonic() - started, config.as_json(settings), more)


def _refuse_others_json(output: Path) -> None:
    """Raise RunError where the JSON that goes with an export would take the place of another file."""
    beside = output.with_suffix(".json")
    if beside.exists():
        other = output.with_name(f"{output.stem}-2{output.suffix}")
        raise RunError(
            f"{beside} exists already, and the pixels and classes of {output} would go there",
            fix=(Set("output", quote(str(other))), Fix(f"remove {beside}")),
        )


def _weights(
    settings: Settings, path: Path, state: "dict[str, torch.Tensor]", about: dict[str, Any]
) -> dict[str, Any]:
    """Write a state dict, and add to what the JSON beside it says. -> what the result adds."""
    import io

    import torch
    from safetensors.torch import save

    from ssl_app.models import stock

    channels = settings.channels or about["channels"]
    if channels != about["channels"]:
        state = stock.widened(state, about["channels"], channels)
        gray = {name: about["pixels"][name] * channels for name in ("mean", "std")}
        about |= {"channels": channels, "pixels": about["pixels"] | gray}
    if path.suffix == ".safetensors":
        content = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    runs.write_bytes(path, content)
    logger.info(f"{len(state)} tensors of {about['backbone']}: {path}")
    last = stock.last_layer(about["backbone"])
    if f"{last}.weight" in state:
        call = stock.constructor(about["backbone"], len(state[f"{last}.weight"]))
        about["loads_into"] = call if channels == stock.COLOR else None
        wider = "" if channels == stock.COLOR else f", exported with --channels {stock.COLOR},"
        logger.info(f"{call}{wider} loads it with strict=True")
    return {"tensors": len(state)}


def _onnx(settings: Settings, path: Path, what: str, about: dict[str, Any]) -> dict[str, Any]:
    """Write an ONNX file, and add to what the JSON beside it says. -> what the result adds."""
    if settings.channels is not None:
        raise SettingsError("--channels is for weights, and an ONNX file takes the run's own; leave --channels out")
    from ssl_app.transfer import onnx_file
    from ssl_app.transfer.loaded import load_run

    onnx_file.require_onnx()
    model = load_run(settings.run, settings.out, "cpu")
    with runs.draft(path) as draft:
        apart = onnx_file.write_onnx(draft, model, what)
    values = "in [0, 1], scaled per image" if model.scaling.intensity == "per-image" else "as in the files"
    side = about["image_size"]
    about |= {
        "input": {"name": onnx_file.INPUT, "shape": ["n", about["channels"], side, side], "values": values},
        "output": onnx_file.OUTPUTS[what],
    }
    logger.info(f"{onnx_file.OUTPUTS[what]} of {about['backbone']}, within {apart:.1g} of torch's: {path}")
    return {"difference": apart}


def _state(tensors: "dict[str, torch.Tensor]", meta: dict[str, Any], what: str) -> "dict[str, torch.Tensor]":
    """The tensors under the names that they are exported by."""
    members = meta.get("members")
    if members is None or what == "backbone":
        body = "backbone.body." if members is None else "backbones.0.body."
        state = {k.removeprefix(body): t for k, t in tensors.items() if k.startswith(body)}
    else:
        state = {k.replace(".body.", ".", 1) if k.startswith("backbones.") else k: t for k, t in tensors.items()}
    if what == "classifier" and members is None:
        state |= _last_layer(tensors, meta)
    return state


def _last_layer(tensors: "dict[str, torch.Tensor]", meta: dict[str, Any]) -> "dict[str, torch.Tensor]":
    """The head: under the name of torchvision's last layer where both are one linear layer, else `head`."""
    from ssl_app.models.stock import last_layer

    head = {k: t for k, t in tensors.items() if k.startswith("head.layers.")}
    if meta["head"] == "linear" and meta["layer"] is None:
        name = last_layer(meta["backbone"]) or "head"
        return {f"{name}.{k.split('.')[-1]}": t for k, t in head.items()}
    return {k.replace("head.layers.", "head."): t for k, t in head.items()}
