"""A connection to a Ray cluster, or one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serpent_ir.errors import MissingExtraError, RestorationError

ADDRESS_VARIABLE = "RAY_ADDRESS"
THIS_MACHINE = "local"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Unless the user set them: nothing is told to Ray's makers, and only what ends a process is logged by its core."""

SECONDS_TO_ANSWER = 10.0
BYTES_OF_STORE = 256 << 20
"""For what Ray sends: weights and file names; pictures stay with the workers."""


def check_extra() -> None:
    """Raise MissingExtraError where Ray Data is not installed."""
    for needed in ("ray", "pyarrow", "pandas", "fsspec"):
        if find_spec(needed) is None:
            raise MissingExtraError(
                f"restoring on a cluster needs the package {needed!r}, which is not installed",
                remedy="Install the extra: pip install 'serpent-ir[ray]'.",
            )


@contextmanager
def ray_session(address: str | None, cores: int) -> Iterator[Any]:
    """The module `ray`, connected; at the end, what was begun here has ended, processes too.

    address: of a cluster; None: that which RAY_ADDRESS names, else a cluster of this machine alone, with `cores`. It
    listens on all of the machine's addresses, as Ray does, but only to who knows a token made for it (from Ray 2.52
    on). A program that is connected already stays so. Raises MissingExtraError, RestorationError without a cluster.
    """
    check_extra()
    address = address or os.environ.get(ADDRESS_VARIABLE) or THIS_MACHINE
    if "ray" not in sys.modules:  # its core reads these when it is imported
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if address == THIS_MACHINE and "RAY_AUTH_MODE" not in os.environ:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex())
    check_reachable(address)
    import ray
    import ray.data

    if ray.is_initialized():
        yield ray
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    of_this_machine = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": BYTES_OF_STORE}
    try:
        try:
            with working_in(Path(__file__).parents[2]):
                ray.init(
                    address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **(of_this_machine if address == THIS_MACHINE else {}),
                )
        except (ConnectionError, RuntimeError) as error:  # RuntimeError: other versions of Python or Ray
            raise no_cluster(address, error) from error
        yield ray
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Raise RestorationError when nobody answers at host:port: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise no_cluster(address, error) from error


def no_cluster(address: str, error: Exception) -> RestorationError:
    came = f"the Ray cluster at {address!r} cannot be used ({' '.join(str(error).split())[:200]})"
    return RestorationError(came, "the address of one that runs the same versions, such as 10.0.0.1:6379")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Within the block, `folder` is this process's current one, from which Ray lets its workers import modules."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
