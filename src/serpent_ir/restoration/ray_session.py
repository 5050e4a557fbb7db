"""A connection to a Ray cluster, or one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from serpent_ir.errors import MissingExtraError, RestorationError

ADDRESS_VARIABLE = "RAY_ADDRESS"
FOLDER_VARIABLE = "RAY_TMPDIR"
SHORT_PATH = "/tmp"
"""Where Ray keeps its files; those that it listens at may have names of 107 bytes."""
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
    on), keeps its files in a folder of its own, and helpers of it may take minutes to end after Ctrl-C in its first
    seconds. A program that is connected already stays so.

    Raises MissingExtraError, RestorationError without a cluster, or for an address by Ray Client (ray://...), through
    which Ray Data does not work. Where something else listens at an address, it takes Ray long to find out.
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
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if address == THIS_MACHINE:
            options = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": BYTES_OF_STORE}
            if FOLDER_VARIABLE not in os.environ:  # Ray's own can be written by all, and is never emptied
                folder = TemporaryDirectory(prefix="ray-", dir=SHORT_PATH, ignore_cleanup_errors=True)
                options["_temp_dir"] = stack.enter_context(folder)
        stack.callback(ray.shutdown)
        try:
            with working_in(Path(__file__).parents[2]):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:  # RuntimeError: other versions of Python or Ray
            raise no_cluster(address, error) from error
        yield ray


def check_reachable(address: str) -> None:
    """Raise RestorationError when nobody answers at host:port: Ray itself would try for a quarter of an hour."""
    if address.startswith("ray://"):
        raise no_cluster(address, "Ray Data does not work through Ray Client")
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise no_cluster(address, error) from error


def no_cluster(address: str, error: Exception | str) -> RestorationError:
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
