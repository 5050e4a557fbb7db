"""Files behind a URL that fsspec knows (https://, s3://, ...): copied to this machine once, whole."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path

from serpent_ir.errors import DataError, MissingExtraError
from serpent_ir.files import replacing, sole_use

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SERPENT_CACHE"
VERSIONS = ("ETag", "etag", "LastModified", "mtime", "created")
"""What file systems call that which changes when a file does."""


def is_remote(location: str) -> bool:
    """Whether it is a URL, or a chain of them such as simplecache::s3://bucket/file."""
    return "://" in location or "::" in location


def shown(location: str) -> str:
    """The location as messages say it: a URL without user, password and query, which give access; a path as it is."""
    return re.sub(r"(?<=://)[^/]*@", "", location).partition("?")[0] if is_remote(location) else location


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
    try:
        import fsspec
    except ImportError as error:
        came = f"{shown(url)} needs the package 'fsspec', which is not installed"
        raise MissingExtraError(came, remedy="Install the extra: pip install 'serpent-ir[remote]'.") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
        facts = system.info(path)
        size = facts.get("size")
        version = next((str(facts[key]) for key in VERSIONS if key in facts), "")
        identity = hashlib.sha256(f"{url}\n{size}\n{version}".encode()).hexdigest()
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
    except DataError:
        raise
    except ImportError as error:
        came = f"{shown(url)} needs a package that is not installed ({error})"
        raise MissingExtraError(came, remedy="Install the package that fsspec names for this kind of URL.") from error
    except Exception as error:  # each kind of server has its own
        reason = re.sub(r"\S*://\S*", lambda match: shown(match[0]), str(error).replace(url, shown(url)))
        came = f"{shown(url)} cannot be fetched ({type(error).__name__}: {reason})"
        raise DataError(came, "a file that is there, and room for its copy") from error
