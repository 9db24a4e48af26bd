"""Names of devices."""

from __future__ import annotations

import torch

from graphmeta.errors import InputError


def device_of(name: str) -> torch.device:
    """The device of this name; ``auto`` is a GPU if there is one, else the CPU.

    Raises:
        InputError: an unknown device, or one that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    return device
