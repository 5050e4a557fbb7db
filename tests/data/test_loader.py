"""Workers end with the process that asked for them, even when it is killed, and when it says so."""

from __future__ import annotations

import multiprocessing
import select
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import pytest

from serpent_ir.data.loader import begin_crop_worker, begin_worker

FORK = multiprocessing.get_context("fork") if sys.platform == "linux" else None


def worker(started: Connection) -> None:
    begin_worker()
    started.send("worker")
    time.sleep(60)


def parent(started: Connection) -> None:
    assert FORK is not None
    FORK.Process(target=worker, args=(started,)).start()
    time.sleep(60)


@pytest.mark.skipif(FORK is None, reason="forks twice, which is cheap on Linux alone")
def test_a_worker_ends_when_its_parent_is_killed() -> None:
    assert FORK is not None
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=parent, args=(there,))
    process.start()
    there.close()
    assert here.recv() == "worker"
    process.kill()
    process.join()
    assert select.select([here.fileno()], [], [], 20)[0], "the worker is still there"
    with pytest.raises(EOFError):
        here.recv()


def crop_worker(started: Connection) -> None:
    begin_crop_worker(0)
    started.send("worker")
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell who sent a signal")
def test_a_worker_leaves_signals_to_its_parent() -> None:
    """What reaches all processes of a job must not end the workers before the parent has written its checkpoint."""
    assert FORK is not None
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=crop_worker, args=(there,))
    process.start()
    assert here.recv() == "worker"
    for number in ("-TERM", "-INT"):
        subprocess.run(["kill", number, str(process.pid)], check=True)
    process.join(0.3)
    assert process.is_alive()
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
