"""Which files of a folder are images."""

from __future__ import annotations

import os
from pathlib import Path

from serpent_ir.errors import DataError

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
"""Suffixes (lower case) that `write_image` has a format for."""

IMAGE_SUFFIXES = (*WRITABLE_SUFFIXES, ".gif", ".avif")
"""Suffixes (lower case) that `find_images` takes for images and `read_image` reads."""


def find_images(folder: str | Path) -> list[Path]:
    """All files below `folder` whose suffix, in any case, is in `IMAGE_SUFFIXES`; sorted by their path.

    Names that start with a dot are skipped, folders of that kind too (thumbnails, the `._photo.jpg` files of macOS).
    Links to files are followed, links to folders are not. The list may be empty.
    Raises DataError when `folder`, or a folder below it, cannot be listed.
    """
    folder = Path(folder)

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list the folder {error.filename}: {error.strerror}", "a readable folder") from error

    found: list[Path] = []
    for parent, children, names in os.walk(folder, onerror=refuse):
        children[:] = [child for child in children if not child.startswith(".")]
        found += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)
