"""How much memory this process takes and may take; bytes everywhere.

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
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 2**20
SHARE_OF_AVAILABLE = 0.9

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MEMBERSHIP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of mallopt, malloc.h of glibc
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl, sys/prctl.h of Linux


def reset_peak() -> None:
    """Forget the peak so far, where that can be done."""
    if _can_be_reset():
        CLEAR_REFS.write_text("5")


def resident() -> int:
    """What the process holds in memory now, or its peak so far where that cannot be reset."""
    return _kilobytes(STATUS, "VmRSS") if _can_be_reset() else _peak_since_start()


def peak() -> int:
    """The most that the process held in memory since `reset_peak`."""
    return _kilobytes(STATUS, "VmHWM") if _can_be_reset() else _peak_since_start()


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
        return _kilobytes(STATUS, "VmHWM")
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
        allowed = _kilobytes(STATUS, "VmData") + min(extra, all_there_is)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed if hard < 0 else min(allowed, hard), hard))


def end_with_parent() -> None:
    """When the parent process ends, whatever the reason, this one is killed (Linux)."""
    if hasattr(_libc(), "prctl"):
        _libc().prctl(PARENT_DEATH_SIGNAL, int(signal.SIGKILL))


def affordable() -> int | None:
    """90 % of the memory that is free on this machine or left to this process's control group; None if unknown."""
    free = [*_free_on_machine(), *_free_in_control_groups()]
    return int(SHARE_OF_AVAILABLE * max(min(free), 0)) if free else None


def _free_on_machine() -> Iterator[int]:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        yield _kilobytes(meminfo, "MemAvailable")


def _free_in_control_groups() -> Iterator[int]:
    """For each control group with a limit, from this process's to the root: the limit minus what is in use."""
    for line in MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.exists() else []:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit_file, usage_file, cache = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit_file, usage_file = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        own = root / name.lstrip("/")
        for group in (own, *own.parents):
            if not group.is_relative_to(root):
                break
            try:
                bound, used = (group / limit_file).read_text(), int((group / usage_file).read_text())
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except OSError:
                continue  # the root has no limit, and a container sees only its own group
            if bound.strip() != "max":
                yield int(bound) - used + int(statistics.get(cache, 0))


def _kilobytes(file: Path, key: str) -> int:
    """The bytes that the line `key:   123 kB` of a file of /proc stands for."""
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise LookupError(f"{file} has no line {key}")
