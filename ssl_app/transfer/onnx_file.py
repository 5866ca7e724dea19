"""A finished run as an ONNX file: pixel values in, probabilities or features out, checked against torch."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssl_app.errors import Fix, SettingsError, UserError
from ssl_app.transfer.loaded import LoadedRun

INPUT, OUTPUTS = "images", {"classifier": "probabilities", "backbone": "features"}
NEAR = 1e-4  # of torch's outputs
TRIED = (1, 3)  # images at a time


class Graph(nn.Module):
    """Scaling and network of a run, or of a classifier its first network: (N, C, S, S) -> (N, K) or (N, D)."""

    low: Tensor
    width: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: LoadedRun, what: str) -> None:
        super().__init__()
        scaling = model.scaling
        self.network: nn.Module = model if what == "classifier" else model.backbones[0]
        numbers = {"low": scaling.low, "width": scaling.high - scaling.low, "mean": scaling.mean, "std": scaling.std}
        for name, value in numbers.items():
            self.register_buffer(name, torch.tensor(value).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Center crops with the values of their files, in float32; scaled per image, in [0, 1]."""
        scaled = ((images - self.low) / self.width).clamp(0, 1)
        found: Tensor = self.network((scaled - self.mean) / self.std)
        return found.float()


def write_onnx(path: Path, model: LoadedRun, what: str) -> float:
    """Write the file, for any number of images. -> how far onnxruntime's outputs are from torch's, at most.

    Raises SettingsError where the packages are missing, UserError where the outputs differ by more than 1e-4.
    """
    require_onnx()
    graph = Graph(model, what).cpu().eval()
    batches = [_images(model, count) for count in TRIED]
    with warnings.catch_warnings():
        # torch's newer exporter follows no exception, by which a backbone leaves at a layer, and took 91 s where
        # this one takes 4 (mean of 5 members, torch 2.14)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", "Converting a tensor to a Python")
        torch.onnx.export(
            graph,
            (batches[-1],),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUTS[what]],
            dynamic_axes={INPUT: {0: "n"}, OUTPUTS[what]: {0: "n"}},
            dynamo=False,
        )
    apart = max(_apart(path, graph, batch) for batch in batches)
    if not apart <= NEAR:
        raise UserError(f"the ONNX file's outputs are {apart:.1g} from the network's", expected=f"at most {NEAR:g}")
    return apart


def require_onnx() -> None:
    """Raise SettingsError where the packages of the extra `onnx` are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"{error.name} is not installed, which ONNX needs", fix=Fix('type pip install "ssl-app[onnx]"')
        ) from error


def _apart(path: Path, graph: Graph, batch: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {INPUT: batch.numpy()})
    with torch.no_grad():
        return float(np.abs(found - graph(batch).numpy()).max())


def _images(model: LoadedRun, count: int) -> Tensor:
    """Random values over the range of the scaling. -> (count, C, S, S)."""
    assert model.pixels.channels is not None
    shape = (count, model.pixels.channels, model.pixels.size, model.pixels.size)
    random = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return model.scaling.low + random * (model.scaling.high - model.scaling.low)
