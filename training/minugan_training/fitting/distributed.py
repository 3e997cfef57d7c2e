"""Training in several processes (torchrun): each makes its part of every batch, and gradients are averaged."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn

from wsi_minugan.errors import DeviceError
from wsi_minugan.minugan.devices import choose_device


def join(device: str) -> tuple[int, int]:
    """Join the processes that torchrun started; returns this one's rank and their number, (0, 1) where there is one only.

    Parameters
    ----------
    device : str
        The user's setting; GPUs talk by NCCL, CPUs by Gloo.

    Returns
    -------
    tuple of int
        Rank, number of processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return dist.get_rank(), world


def local_device(device: str) -> str:
    """Return torch's name of a device; of "cuda", this process's own GPU, and "auto" takes one if there is one.

    Parameters
    ----------
    device : {"cpu", "cuda", "auto"}
        The user's setting.

    Returns
    -------
    str
        Such as "cuda:1".

    Raises
    ------
    DeviceError
        If there is no such device.
    """
    if device not in {"cpu", "cuda", "auto"}:
        raise DeviceError(f"There is no device '{device}'. Choose cpu, cuda or auto.")
    if choose_device(device) == "cpu":
        return "cpu"
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise DeviceError(
            f"There are {torch.cuda.device_count()} GPUs for more processes. Start as many as there are GPUs."
        )
    return f"cuda:{number}"


def share_gradients(module: nn.Module, world: int) -> None:
    """Average gradients over all processes, in place, in one message.

    Parameters
    ----------
    module : Module
        Its gradients are changed.
    world : int
        Number of processes.
    """
    if world == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= world
    start = 0
    for g in gradients:
        g.copy_(flat[start : start + g.numel()].view_as(g))
        start += g.numel()


def share_buffers(module: nn.Module, world: int) -> None:
    """Give all processes the first one's running statistics, so that all stay the same.

    Parameters
    ----------
    module : Module
        Its buffers are changed.
    world : int
        Number of processes.
    """
    if world > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def wait_for_all(world: int, device: torch.device) -> None:
    """Return when all processes are here; by a sum, for a barrier of NCCL's may take another process's GPU.

    Parameters
    ----------
    world : int
        Number of processes.
    device : torch.device
        This process's.
    """
    if world > 1:
        here = torch.ones(1, device=device)
        dist.all_reduce(here)
        here.item()
