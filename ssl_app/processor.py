"""What the processor of this machine can do."""

from functools import cache
from pathlib import Path


@cache
def features() -> frozenset[str]:
    """Words that the operating system says of the processor, `avx512_bf16` and `amx_bf16` among them."""
    info = Path("/proc/cpuinfo")
    return frozenset(info.read_text().split()) if info.is_file() else frozenset()
