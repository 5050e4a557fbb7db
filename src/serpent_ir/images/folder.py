"""Which files of a folder are images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from serpent_ir.errors import DataError

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".avif")
"""Suffixes (lower case) that `write_image` has a format for."""

ALPHA_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".avif")
"""Those of them whose formats have an alpha channel."""

IMAGE_SUFFIXES = (*WRITABLE_SUFFIXES, ".gif")
"""Suffixes (lower case) that `find_images` takes for images and `read_image` reads."""


@dataclass(frozen=True)
class FolderContent:
    """The files below a folder, sorted by their path: those taken for images, and others: files whose name is not an
    image's, and links to folders.

    A command that works through a folder does not touch `others`, but names them and counts them as not done: a
    photograph of a kind that cannot be read (.heic, .cr2) must not be missed in silence.
    """

    images: list[Path]
    others: list[Path]


def find_images(folder: str | Path) -> list[Path]:
    """`list_folder(folder).images`, which may be empty. Raises DataError when the folder cannot be listed."""
    return list_folder(folder).images


def list_folder(folder: str | Path) -> FolderContent:
    """All files below `folder`; images are those whose suffix, in any case, is in `IMAGE_SUFFIXES`.

    Names that start with a dot are skipped, folders of that kind too (thumbnails, the `._photo.jpg` files of macOS).
    Links to files are followed, links to folders are not: they are among the others.
    Raises DataError when `folder`, or a folder below it, cannot be listed.
    """
    folder = Path(folder)

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list the folder {error.filename}: {error.strerror}", "a readable folder") from error

    found, links = list[Path](), list[Path]()
    for parent, children, names in os.walk(folder, onerror=refuse):
        children[:] = [child for child in children if not child.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
        links += [Path(parent, child) for child in children if os.path.islink(os.path.join(parent, child))]
    others = [path for path in found if path.suffix.lower() not in IMAGE_SUFFIXES]
    return FolderContent(sorted(set(found) - set(others)), sorted(others + links))


def lies_in(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder` or below it, be it by links; neither need exist."""
    real = Path(os.path.realpath(path))
    return folder.exists() and any(one.exists() and os.path.samefile(one, folder) for one in (real, *real.parents))
