"""Which device the network runs on, and in which arithmetic; decided without loading torch where no GPU can be."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Literal

from wsi_minugan.config import Precision
from wsi_minugan.errors import DeviceError

DeviceType = Literal["cpu", "cuda"]

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")


def usable_cores() -> int:
    """Return how many cores this process may use; on systems that cannot say so, how many there are.

    Returns
    -------
    int
        1 or more.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def has_gpu() -> bool:
    """Return whether torch finds a GPU in this machine.

    Returns
    -------
    bool
        False where torch has no CUDA.
    """
    # Torch takes a second to load: without a driver's device file it need not be asked.
    if sys.platform == "linux" and not any(Path(p).exists() for p in _GPU_FILES):
        return False
    import torch

    return torch.cuda.is_available()


def choose_device(device: str) -> DeviceType:
    """Return the device for a setting: "auto" takes a GPU if there is one.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        The user's setting.

    Returns
    -------
    {"cpu", "cuda"}
        Where the network runs.

    Raises
    ------
    DeviceError
        If CUDA is asked for and missing.
    """
    if device == "cuda" and not has_gpu():
        raise DeviceError(
            "No CUDA device was found. Run with --device cpu, or check the driver with nvidia-smi."
        )
    return "cuda" if device != "cpu" and has_gpu() else "cpu"


def settle_precision(precision: Precision, device: DeviceType) -> Precision:
    """Return the arithmetic for a setting on a device: the fastest that keeps the class map, for "auto".

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16", "fp16"}
        The user's setting.
    device : {"cpu", "cuda"}
        Where the network runs.

    Returns
    -------
    {"fp32", "bf16", "fp16"}
        The arithmetic.
    """
    if precision != "auto":
        return precision
    return "bf16" if device == "cuda" or _cpu_prefers_bf16() else "fp32"


def _cpu_prefers_bf16() -> bool:
    try:
        return prefers_bf16(Path("/proc/cpuinfo").read_text("ascii", "replace"))
    except OSError:
        return False


def prefers_bf16(cpuinfo: str) -> bool:
    """Return whether a CPU, by Linux's account of it, is known to be faster in bf16 than in fp32.

    Those that multiply matrices of it (AMX) are, and AMD's that name AVX-512's bf16 (Zen 4 and 5): 1.7 times as fast or
    more. Another that names it was seen to take 1.6 times as long in it (docs/decisions/0012-arithmetic.md).

    Parameters
    ----------
    cpuinfo : str
        Content of ``/proc/cpuinfo``.

    Returns
    -------
    bool
        False for what is not known.
    """
    facts: dict[str, str] = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    flags, amd = facts.get("flags", "").split(), facts.get("vendor_id") == "AuthenticAMD"
    return "amx_bf16" in flags or (amd and "avx512_bf16" in flags)
