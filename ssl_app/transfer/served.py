"""A finished run's network as MLflow serves it: pixels as they lie in files in, what `predict` writes out.

Models in MLflow's stores name this module: `_load_pyfunc` is what MLflow calls.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_app import checkpoints
from ssl_app.tracking.base import Network

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ssl_app.transfer.loaded import LoadedRun


class Served:
    """Images of one size, (N, H, W) or (N, H, W, C), to labels and probabilities, or to features (N, D)."""

    def __init__(self, model: "LoadedRun") -> None:
        self.model = model

    def predict(
        self, images: "NDArray[Any]", params: Mapping[str, Any] | None = None
    ) -> "pd.DataFrame | NDArray[np.float32]":
        """One row an image, with the columns that `predict` writes. Raises DataError for what is no image."""
        import pandas as pd

        pictures = list(images)  # an array of three axes may else be one picture
        if not self.model.classes:
            return self.model.features(pictures)
        found = self.model.predict(pictures)
        labels = [self.model.classes[k] for k in found.argmax(1)]
        columns = {f"p_{name}": found[:, k] for k, name in enumerate(self.model.classes)}
        return pd.DataFrame({"label": labels, **columns})


def _load_pyfunc(path: str) -> Served:
    """The network of a file of weights, for MLflow."""
    from ssl_app.transfer.loaded import load_file

    return Served(load_file(Path(path)))


def network_of(weights: Path) -> Network:
    """What MLflow is to know of a run's file of weights. Raises CheckpointError."""
    meta = checkpoints.read_meta(weights)
    dtype = meta["pixels"].get("dtype") or "uint8"
    return Network(weights, __name__, meta["channels"], dtype, tuple(meta.get("classes", ())))
