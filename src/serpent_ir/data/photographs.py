"""Photographs of a folder, decoded once and kept in memory as bytes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from serpent_ir.errors import DataError, ImageReadError
from serpent_ir.images import find_images, read_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotographFolder:
    """A folder of clean photographs, searched recursively.

    `path` may be relative to the current folder, begin with ~ and hold environment variables ($NAME, ${NAME}).
    `shrink`: range of the random factor by which a crop is scaled down (1.0 keeps the size); scaling down hides the
    traces of JPEG compression.

    Raises DataError unless 1 <= shrink[0] <= shrink[1].
    """

    path: str
    shrink: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        lowest, highest = self.shrink
        if not 1.0 <= lowest <= highest < float("inf"):
            raise DataError(f"folder {self.path}: shrink is {self.shrink}", "two factors, 1 <= lowest <= highest")

    def resolved(self) -> Path:
        """The folder itself. Raises DataError when a variable is not set or the folder does not exist."""
        expanded = os.path.expandvars(os.path.expanduser(self.path))
        if "$" in expanded:
            raise DataError(
                f"data folder {self.path!r} names an environment variable that is not set",
                remedy="Set the variable, or name the folders on the command line.",
            )
        folder = Path(expanded)
        if not folder.is_dir():
            raise DataError(f"data folder {str(folder)!r} does not exist", "a folder of photographs")
        return folder


@dataclass(frozen=True)
class Photograph:
    """`pixels`: uint8 (3, H, W); `name`: the file's path inside its folder; `shrink`: see PhotographFolder."""

    name: str
    pixels: Tensor
    shrink: tuple[float, float] = (1.0, 1.0)


def load_photographs(folders: Sequence[PhotographFolder], limit: int | None = None) -> list[Photograph]:
    """Decode the photographs of all folders, in the folders' order, each folder sorted by path.

    With `limit`, only that many, evenly spaced over the sorted files. Files that cannot be read are skipped, and
    reported with their number in one logged warning. Raises DataError when a folder has no readable image.
    """
    found = [(folder, root, path) for folder in folders for root in [folder.resolved()] for path in _images(root)]
    if limit is not None and limit < len(found):
        found = [found[index * len(found) // limit] for index in range(limit)]
    photographs: list[Photograph] = []
    failures: list[str] = []
    for folder, root, path in found:
        try:
            pixels = read_image(path).pixels
        except ImageReadError as error:
            failures.append(str(error))
            continue
        as_bytes = pixels.mul(255).round_().to(torch.uint8)
        photographs.append(Photograph(str(path.relative_to(root)), as_bytes, folder.shrink))
    if failures:
        log.warning("%d of %d images skipped: %s", len(failures), len(found), " | ".join(failures))
    if not photographs:
        raise DataError(f"no readable image in {', '.join(folder.path for folder in folders) or 'no folder at all'}")
    return photographs


def _images(folder: Path) -> list[Path]:
    paths = find_images(folder)
    if not paths:
        raise DataError(f"data folder {str(folder)!r} holds no image", "photographs (see serpent_ir.images)")
    return paths
