"""What every test has: no network, one thread, and small data that it makes itself."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.pop("MLFLOW_TRACKING_URI", None)

import numpy as np
import pytest

from ssl_app.environment import prepare_environment

prepare_environment()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def folder_of_classes(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of class sub-folders of PNG images that a classifier can tell apart."""

    def make(per_class: int = 12, classes: int = 3, side: int = 20, channels: int = 1, name: str = "images") -> Path:
        import cv2

        root = tmp_path / name
        generator = np.random.default_rng(0)
        for label in range(classes):
            (root / f"class{label}").mkdir(parents=True)
            for number in range(per_class):
                image = generator.integers(0, 60, (side, side, channels), dtype=np.uint8)
                image[: side // 2, label * side // classes : (label + 1) * side // classes] += 150
                cv2.imwrite(str(root / f"class{label}" / f"{number:03d}.png"), image)
        return root

    return make
