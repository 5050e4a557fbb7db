"""Files behind a URL that fsspec knows (https://, s3://, ...): copied to this machine once, whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from serpent_ir.errors import DataError
from serpent_ir.files import replacing, sole_use
from serpent_ir.urls import file_system, named_errors, shown, version_of

CACHE_VARIABLE = "SERPENT_CACHE"


def cache_folder() -> Path:
    """Where copies lie: the folder that SERPENT_CACHE names, else serpent-ir in the user's folder for such files."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "serpent-ir"


def fetch(url: str) -> Path:
    """The copy of the file behind `url` on this machine, made when there is none of the same size and version.

    Its name is a hash of the URL and of what the server says of the file. Raises MissingExtraError without fsspec or
    the package that a kind of URL needs, DataError when the file cannot be had or not be written.
    """
    with named_errors(DataError, url, "cannot be fetched", "a file that is there, and room for its copy"):
        system, path = file_system(url, "remote")
        facts = system.info(path)
        size = facts.get("size")
        identity = hashlib.sha256(f"{url}\n{size}\n{version_of(facts)}".encode()).hexdigest()
        copy = cache_folder() / identity[:32]
        if copy.exists():
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        lock = copy.with_name(f".{copy.name}.lock")
        with sole_use(lock):  # processes that train together ask for the same file
            try:
                if not copy.exists():
                    with replacing(copy) as temporary:
                        system.get_file(path, str(temporary))
                        arrived = temporary.stat().st_size
                        if size is not None and arrived != size:
                            raise DataError(f"{shown(url)} ended after {arrived} of {size} bytes", remedy="Try again.")
            finally:
                lock.unlink(missing_ok=True)
        return copy
