from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serpent_ir import free_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


def test_affordable_memory_leaves_a_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_free_on_machine", lambda: iter([1000]))
    monkeypatch.setattr(free_memory, "_free_in_control_groups", lambda: iter([500, 800]))
    assert free_memory.affordable() == 450
    monkeypatch.setattr(free_memory, "_free_in_control_groups", lambda: iter([]))
    assert free_memory.affordable() == 900
    monkeypatch.setattr(free_memory, "_free_on_machine", lambda: iter([]))
    assert free_memory.affordable() is None


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free is the limit minus what is used, page cache that can go not counted; in the groups above as well."""
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    line, root, cache = (
        ("4:cpu,memory:/outer/inner", tmp_path / "groups/memory", "total_inactive_file")
        if version == 1
        else ("0::/outer/inner", tmp_path / "groups", "inactive_file")
    )
    unlimited = str(2**63) if version == 1 else "max"
    for folder, limit, used in (("outer", "1000", "400"), ("outer/inner", unlimited, "300")):
        (root / folder).mkdir(parents=True)
        (root / folder / names[0]).write_text(f"{limit}\n")
        (root / folder / names[1]).write_text(f"{used}\n")
        (root / folder / "memory.stat").write_text(f"anon 1\n{cache} 50\n")
    membership = tmp_path / "cgroup"
    membership.write_text(f"9:pids:/\n{line}\n")
    monkeypatch.setattr(free_memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(free_memory, "MEMBERSHIP", membership)
    assert min(free_memory._free_in_control_groups()) == 1000 - 400 + 50
