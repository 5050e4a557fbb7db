"""How much memory this process takes, and bounding it; bytes everywhere.

On Linux the peak is the high-water mark of the resident set, which can be reset. Elsewhere, and in sandboxes where it
cannot be reset, it is the peak since the process began: only the first large pass of a process is seen.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import signal
import sys
from pathlib import Path

from serpent_ir.free_memory import affordable as affordable
from serpent_ir.free_memory import kilobytes

MEBIBYTE = 2**20

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of mallopt, malloc.h of glibc
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl, sys/prctl.h of Linux


def reset_peak() -> None:
    """Forget the peak so far, where that can be done."""
    if _can_be_reset():
        CLEAR_REFS.write_text("5")


def resident() -> int:
    """What the process holds in memory now, or its peak so far where that cannot be reset."""
    return kilobytes(STATUS, "VmRSS") if _can_be_reset() else _peak_since_start()


def peak() -> int:
    """The most that the process held in memory since `reset_peak`."""
    return kilobytes(STATUS, "VmHWM") if _can_be_reset() else _peak_since_start()


@functools.cache
def _can_be_reset() -> bool:
    """Tried once: permissions alone do not tell."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _peak_since_start() -> int:
    """As Linux tells it; else from getrusage, which on Linux would also count what the parent held before the start."""
    try:
        return kilobytes(STATUS, "VmHWM")
    except (OSError, LookupError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back_what_is_freed() -> None:
    """From now on large blocks go back to the system when freed, so that the resident set is what is in use (glibc)."""
    _mallopt(MMAP_THRESHOLD, 64 * 1024)
    if hasattr(_libc(), "malloc_trim"):
        _libc().malloc_trim(0)


def keep_what_is_freed() -> None:
    """From now on freed blocks stay with the process for reuse, as torch keeps them on CUDA (glibc).

    Else a pass over a large image spends a quarter of its time on pages that the system hands out anew, full of zeros.
    """
    _mallopt(MMAP_MAX, 0)
    _mallopt(TRIM_THRESHOLD, -1)
    _mallopt(TOP_PAD, 64 * MEBIBYTE)


def _mallopt(parameter: int, value: int) -> None:
    if hasattr(_libc(), "mallopt"):
        _libc().mallopt(parameter, value)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def can_be_limited() -> bool:
    """Whether `limit` does anything (Linux)."""
    return STATUS.exists()


def limit(extra: int) -> None:
    """Let the process take `extra` bytes beyond what it has; more is refused, and torch raises (Linux).

    What is bounded is private writable memory, whether it is in use or only asked for.
    """
    if can_be_limited():
        all_there_is = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        allowed = kilobytes(STATUS, "VmData") + min(extra, all_there_is)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed if hard < 0 else min(allowed, hard), hard))


def end_with_parent() -> None:
    """When the parent process ends, whatever the reason, this one is killed (Linux)."""
    if hasattr(_libc(), "prctl"):
        _libc().prctl(PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
