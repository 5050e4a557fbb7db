"""Compiling the kernels ahead, in several processes that share Triton's cache: a run would compile one after the other.

Triton compiles a kernel anew for each type and for many properties of sizes, so for almost every map of the benchmark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import torch
from common import scan_inputs
from gpu_correctness import SMALL, TOLERANCES, computed, rounded, scales_of, upstream_of
from gpu_device import Record, Session

MAPS = ((256, 1), (1024, 1), (256, 8))  # images and batches
MOST_PROCESSES = 8
PATIENCE = 100.0  # seconds; what is not compiled by then is compiled when first used

Task = tuple[Any, int, int, int, int, torch.dtype]
"""Size (of a square map, or height and width), channels, states, rank, batch, type."""


def tasks(session: Session) -> list[Task]:
    """What the scan of the other parts needs, nearly."""
    maps: list[Any] = [(*scale, batch) for image, batch in MAPS for scale in scales_of(image, session)]
    maps += [] if session.quick else [(*of_map, 1) for of_map in SMALL]
    return [(*of_map, dtype) for of_map in maps for dtype in TOLERANCES]


def compile_ahead(session: Session, script: str) -> Record:
    """Runs `work` in processes of their own; gives how many, their exit statuses (None: stopped), and the seconds."""
    count = 0 if session.quick else min(MOST_PROCESSES, (os.cpu_count() or 1) // 2, len(tasks(session)))
    start = time.perf_counter()
    commands = [
        [sys.executable, script, "--device", str(session.device), "--compile", str(i), str(count)] for i in range(count)
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    statuses: list[int | None] = []
    for process in processes:
        try:
            _, complaint = process.communicate(timeout=max(0.1, PATIENCE - (time.perf_counter() - start)))
            statuses.append(process.returncode)
            if process.returncode:
                print(complaint.decode(errors="replace")[-2000:], file=sys.stderr)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            statuses.append(None)
    seconds = time.perf_counter() - start
    print(f"[{session.budget.used:5.0f} s] compiling ahead in {count} processes: {seconds:.1f} s", flush=True)
    return {"processes": count, "exit_statuses": statuses, "seconds": seconds}


def work(session: Session, number: int, count: int) -> int:
    """Runs every `count`-th task once, forwards and backwards, for the sake of compiling; its exit status."""
    for size, channels, states, rank, batch, dtype in tasks(session)[number::count]:
        inputs = rounded(scan_inputs(size, channels, states, rank, batch=batch, device=session.device), dtype)
        computed(inputs, upstream_of(inputs["x"]), "triton")
        session.synchronize()
    return 0
