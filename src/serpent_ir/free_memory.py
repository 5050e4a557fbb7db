"""How much memory may be taken; bytes everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SHARE_OF_AVAILABLE = 0.9

MEMBERSHIP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def affordable() -> int | None:
    """90 % of the memory that is free on this machine or left to this process's control group; None if unknown."""
    free = [*_free_on_machine(), *_free_in_control_groups()]
    return int(SHARE_OF_AVAILABLE * max(min(free), 0)) if free else None


def _free_on_machine() -> Iterator[int]:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        yield kilobytes(meminfo, "MemAvailable")


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


def kilobytes(file: Path, key: str) -> int:
    """The bytes that the line `key:   123 kB` of a file of /proc stands for."""
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise LookupError(f"{file} has no line {key}")
