"""Names of devices."""

from __future__ import annotations

import torch

from graphmeta.distributed.group import current
from graphmeta.errors import InputError


def device_of(name: str) -> torch.device:
    """The device of this name; ``auto`` is a GPU if there is one, else the CPU.

    Of several processes on a machine, each takes a GPU of its own for ``auto`` and ``cuda``, as far as there are any.

    Raises:
        InputError: an unknown device, or one that this machine does not have.
    """
    if name == "auto":
        return _own_gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} must be auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} must be auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r} is not available: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs; "
            f"use auto or cpu"
        )
    return _own_gpu() if device.type == "cuda" and device.index is None else device


def _own_gpu() -> torch.device:
    """The GPU of this process: the current one, or of several processes one each."""
    if current().size == 1:
        return torch.device("cuda")
    return torch.device("cuda", current().local_rank % torch.cuda.device_count())
