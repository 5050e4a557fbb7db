"""Processes that decode and cut crops while the model computes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from multiprocessing.context import BaseContext
from typing import Any

import pyvips
from torch.utils.data import DataLoader

from serpent_ir.data.batches import BatchKey, Collection, CropBatches
from serpent_ir.data.photographs import Photographs


def crop_loader(
    photographs: Collection, seed: int, keys: Iterable[BatchKey], workers: int, pin_memory: bool = False
) -> DataLoader[Any]:
    """The batch of each of `keys` in turn (see CropBatches), made by `workers` processes, 0: by this one."""
    return DataLoader(
        CropBatches(photographs, seed),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        worker_init_fn=begin_crop_worker,
        multiprocessing_context=worker_context(photographs) if workers else None,
        pin_memory=pin_memory,
    )


def worker_context(photographs: Collection) -> BaseContext:
    """How workers are started.

    Forked ones share the photographs that lie in memory. libvips does not survive a fork once it has run threads, so
    workers that decode are started afresh, from a server that imports all they need once.
    """
    decoding = isinstance(photographs, Photographs) and not photographs.in_memory
    kinds = multiprocessing.get_all_start_methods()
    if not decoding and "fork" in kinds and sys.platform != "darwin":
        return multiprocessing.get_context("fork")
    return fresh_context()


def fresh_context() -> BaseContext:
    """Processes that begin without anything of this one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["serpent_ir.data"])
    return context


def begin_crop_worker(worker: int) -> None:
    """`begin_worker`, and leave SIGTERM to the parent as well, which may get it together with its workers and then
    needs one batch more. When the parent itself sends it, end (where the system tells who sent it: not on macOS).
    """
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in the threads that are begun from here on, too
        threading.Thread(target=end_when_the_parent_says, daemon=True).start()
    begin_worker()


def begin_worker() -> None:
    """Leave Ctrl-C, which reaches all processes of a terminal, to the parent: a worker that died of it would spoil the
    clean stop. End when the parent ends, however it does. Take one thread for libvips, since there are as many workers
    as were asked for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pyvips.vips_lib.vips_concurrency_set(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_when_the_parent_says() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            continue
        os._exit(0)


def end_with_parent() -> None:
    """torch's own watch looks at the process that forked the worker, which for a fresh one is not the parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
