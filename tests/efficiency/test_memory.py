from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serpent_ir.efficiency import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the files of /proc and control groups are Linux's")

SIZE = 200 * 2**20


@pytest.mark.skipif(not memory._can_be_reset(), reason="the peak cannot be reset here")
def test_the_peak_is_seen_and_can_be_reset() -> None:
    held = memory.resident()
    memory.reset_peak()
    assert memory.peak() - held < SIZE / 3
    block = np.ones(SIZE, dtype=np.uint8)
    assert memory.resident() - held > 0.9 * SIZE
    del block
    assert memory.peak() - held > 0.9 * SIZE
    assert memory.resident() - held < SIZE / 3
    memory.reset_peak()
    assert memory.peak() - held < SIZE / 3


@pytest.fixture
def no_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system refuses to reset the peak: /proc has no such file, or shows it and cannot write it."""
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    memory._can_be_reset.cache_clear()
    yield
    memory._can_be_reset.cache_clear()


@pytest.mark.usefixtures("no_reset")
def test_where_the_peak_cannot_be_reset_it_is_that_of_the_whole_process() -> None:
    before = memory.resident()
    block = np.ones(SIZE, dtype=np.uint8)
    del block
    memory.reset_peak()
    peak = memory.peak()
    assert memory.resident() == peak >= max(before, SIZE)


@pytest.mark.usefixtures("no_reset")
def test_a_system_that_does_not_tell_the_peak_in_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(memory, "STATUS", status)
    expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert memory.peak() >= expected
    status.write_text("Name: python\nVmRSS: 1 kB\n")
    assert memory.peak() >= expected


def test_a_limit_beyond_the_machine_is_no_error() -> None:
    program = f"import runpy; runpy.run_path({memory.__file__!r})['limit'](10**30); print(len(bytearray({SIZE})))"
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert completed.stdout == f"{SIZE}\n", completed.stderr


def test_a_process_does_not_outlive_its_parent() -> None:
    """The child holds the pipe open: were it alive, reading would go on until the time is over."""
    child = f"import runpy, time; runpy.run_path({memory.__file__!r})['end_with_parent'](); print(1, flush=True)"
    parent = f"""
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child + "; time.sleep(60)"!r}], stdout=subprocess.PIPE, stderr=1)
child.stdout.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
    completed = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, timeout=30, check=False)
    assert completed.returncode == -signal.SIGKILL and completed.stdout == b""
