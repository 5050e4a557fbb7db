"""Which device a model runs on."""

from __future__ import annotations

import torch

from serpent_ir.errors import DeviceError


def resolve_device(device: str | torch.device | None) -> torch.device:
    """`device` itself after a check that it is there; None: CUDA, else Apple's MPS, else the CPU.

    Raises DeviceError for a name torch does not know or a device this machine does not have.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DeviceError(f"device {str(device)!r} cannot be used ({reason})", "cpu, cuda, cuda:1, mps ...") from error
    return resolved
