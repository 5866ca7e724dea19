"""Which precision is faster on this CPU with this network: a few steps of each, timed once and kept."""

import copy
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ssl_app import runs
from ssl_app.models.backbones import Backbone
from ssl_app.training.hardware import Hardware, bf16_units

logger = logging.getLogger(__name__)

STEPS, IMAGES = 3, 32  # timed after a first one, and images of each
GAIN = 0.95  # of the time of fp32, above which bf16 is not worth its rounding


def measured(hardware: Hardware, backbone: Backbone, cache: Path) -> Hardware:
    """The hardware with the faster precision of forward and backward passes of this backbone.

    Where the precision is undecided only. What was found is kept in `cache`, so that a later run computes alike.
    """
    if not hardware.undecided:
        return hardware
    about = (bf16_units(), backbone.name, backbone.channels, backbone.image_size, hardware.threads, torch.__version__)
    path = cache / "precision" / f"{hashlib.blake2b(repr(about).encode(), digest_size=8).hexdigest()}.json"
    if path.is_file():
        found = runs.read_json(path)
    else:
        found = _seconds(hardware, backbone)
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, found)
    fast = found["bf16"] < GAIN * found["fp32"]
    reason = f"a step takes {1e3 * found['bf16']:.0f} ms in bf16, {1e3 * found['fp32']:.0f} ms in fp32"
    chosen = replace(hardware, bf16=fast, reason=reason, undecided=False)
    logger.info(f"precision: {'bf16' if fast else 'fp32'} ({reason})")
    return chosen


def _seconds(hardware: Hardware, backbone: Backbone) -> dict[str, float]:
    """Of a forward and backward pass, the quickest of a few, by precision; in turn, under the same load."""
    with torch.random.fork_rng([]):
        images = torch.randn(IMAGES, backbone.channels, backbone.image_size, backbone.image_size)
        images = images.to(memory_format=hardware.memory_format)
        steps = {name: _step(replace(hardware, bf16=name == "bf16"), backbone, images) for name in ("fp32", "bf16")}
        times = [{name: step() for name, step in steps.items()} for _ in range(STEPS + 1)]
    return {name: min(one[name] for one in times[1:]) for name in steps}


def _step(hardware: Hardware, backbone: Backbone, images: Tensor) -> Callable[[], float]:
    """A forward and backward pass on a copy of the network, that returns its seconds."""
    network = copy.deepcopy(backbone).train()
    network.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]

    def step() -> float:
        began = time.perf_counter()
        with hardware.autocast():
            loss = network(images).float().square().mean()
        loss.backward()
        return time.perf_counter() - began

    return step
