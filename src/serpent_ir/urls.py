"""Files behind URLs that fsspec knows (https://, s3://, ...): which texts are such, and what may be said of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from serpent_ir.errors import MissingExtraError, SerpentError

VERSIONS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "modified", "updated", "created")
"""What file systems call that which changes when a file does."""


def is_remote(location: str) -> bool:
    """Whether it is a URL, or a chain of them such as simplecache::s3://bucket/file."""
    return "://" in location or "::" in location


def shown(location: str) -> str:
    """The location as messages say it: a URL without user, password and query, which give access; a path as it is."""
    return re.sub(r"(?<=://)[^/]*@", "", location).partition("?")[0] if is_remote(location) else location


def file_system(url: str, extra: str) -> tuple[Any, str]:
    """The fsspec file system that `url` lies on, and its path there. extra: of serpent-ir, to be named if needed.

    Raises MissingExtraError without fsspec, and what fsspec raises: see `named_errors`.
    """
    try:
        import fsspec
    except ImportError as error:
        came = f"{shown(url)} needs the package 'fsspec', which is not installed"
        raise MissingExtraError(came, remedy=f"Install the extra: pip install 'serpent-ir[{extra}]'.") from error
    return fsspec.core.url_to_fs(url)


@contextmanager
def named_errors(
    kind: type[SerpentError], url: str, failed: str, expected: str, name: str | None = None
) -> Iterator[None]:
    """Within the block, any error is `kind`, saying that `name` `failed` (such as "cannot be read") and why.

    Each kind of server raises errors of its own. url: as it is used, of which nothing is said that gives access. name:
    None: what may be said of the URL. A package that is missing for a kind of URL is MissingExtraError; errors of this
    package stay as they are.
    """
    name = shown(url) if name is None else name
    try:
        yield
    except SerpentError:
        raise
    except ImportError as error:
        came = f"{name} needs a package that is not installed ({error})"
        raise MissingExtraError(came, remedy="Install the package that fsspec names for this kind of URL.") from error
    except Exception as error:
        reason = re.sub(r"\S*://\S*", lambda match: shown(match[0]), str(error).replace(url, shown(url)))
        raise kind(f"{name} {failed} ({type(error).__name__}: {reason})", expected) from error


def version_of(facts: Mapping[str, Any]) -> str:
    """What a file system says of a file that changes when it does; empty where it says nothing of the kind."""
    return next((str(facts[key]) for key in VERSIONS if facts.get(key) is not None), "")
