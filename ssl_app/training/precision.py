"""Which precision is faster on this CPU with this network: a few steps of each, timed once and kept."""

import copy
import hashlib
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

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
        found = {name: _seconds(hardware, backbone, name == "bf16") for name in ("fp32", "bf16")}
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, found)
    fast = found["bf16"] < GAIN * found["fp32"]
    reason = f"a step takes {1e3 * found['bf16']:.0f} ms in bf16, {1e3 * found['fp32']:.0f} ms in fp32"
    chosen = replace(hardware, bf16=fast, reason=reason, undecided=False)
    logger.info(f"precision: {'bf16' if fast else 'fp32'} ({reason})")
    return chosen


def _seconds(hardware: Hardware, backbone: Backbone, bf16: bool) -> float:
    """Of a forward and backward pass, the quickest of a few."""
    timed = replace(hardware, bf16=bf16)
    with torch.random.fork_rng([]):
        network = copy.deepcopy(backbone).train()
        network.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
        images = torch.randn(IMAGES, backbone.channels, backbone.image_size, backbone.image_size)
        images = images.to(memory_format=hardware.memory_format)
        times = []
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            with timed.autocast():
                loss = network(images).float().square().mean()
            loss.backward()
            times.append(time.perf_counter() - began)
    return min(times[1:])
