"""Which backend runs the scan: the argument, else `use_backend`, else `SERPENT_BACKEND`, else the device decides.

A backend that was named but cannot run is an error, never a silent substitute.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from serpent_ir.errors import BackendError, UnknownNameError
from serpent_ir.ops import native, triton

BACKENDS = ("native", "triton", "portable")
_BEST = {"cpu": "native", "cuda": "triton"}
ENVIRONMENT_VARIABLE = "SERPENT_BACKEND"

_in_context: ContextVar[str | None] = ContextVar("serpent_backend", default=None)


@dataclass(frozen=True)
class Choice:
    """The backend that runs, and why."""

    backend: str
    reason: str


def check_name(name: str) -> str:
    """`name` if a backend is called so; raises `UnknownNameError` otherwise."""
    if name not in BACKENDS:
        raise UnknownNameError(f"backend {name!r}", f"one of {', '.join(BACKENDS)}")
    return name


def why_unavailable(backend: str, device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why the backend cannot run on that device with inputs of that type, or None when it can."""
    if check_name(backend) == "portable":
        return None
    if backend == "triton":
        return triton.why_unavailable(device, dtype)
    if native.unavailable is not None:
        return native.unavailable
    return None if device.type == "cpu" else f"it runs on the CPU only, not on {device.type}"


def choose(device: torch.device, argument: str | None = None, dtype: torch.dtype | None = None) -> Choice:
    """The backend for tensors of `dtype` on `device`. Raises `BackendError` when the one asked for cannot run there."""
    asked = [
        (argument, "asked for by argument"),
        (_in_context.get(), "asked for by use_backend"),
        (os.environ.get(ENVIRONMENT_VARIABLE), f"asked for by {ENVIRONMENT_VARIABLE}"),
    ]
    for name, reason in asked:
        if name:
            problem = why_unavailable(name, device, dtype)
            if problem is not None:
                raise BackendError(
                    f"backend {name!r} was {reason}, but cannot run on {device}: {problem}",
                    remedy="Ask for 'portable', or for none: `serpent doctor` shows what is there.",
                )
            return Choice(name, reason)
    best = _BEST.get(device.type)
    if best is None:
        return Choice("portable", f"no other backend runs on {device.type}")
    problem = why_unavailable(best, device, dtype)
    if problem is not None:
        return Choice("portable", f"{best} is not available: {problem}")
    if best == "triton":
        return Choice(best, "its kernels are made for such devices")
    return Choice(best, f"the compiled kernels ({native.instruction_set()}) are the fastest on the CPU")


def runs_natively(device: torch.device) -> bool:
    """Whether `choose(device)` is "native": the same in less time where nothing was asked for."""
    if _in_context.get() or os.environ.get(ENVIRONMENT_VARIABLE):
        return choose(device).backend == "native"
    return device.type == "cpu" and native.unavailable is None


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block, scans without a `backend` argument run on `name`; None changes nothing."""
    if name is None:
        yield
        return
    token = _in_context.set(check_name(name))
    try:
        yield
    finally:
        _in_context.reset(token)
