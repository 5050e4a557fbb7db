"""Photographs, decoded or not yet, behind one interface: a number of them, and the photograph at an index."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from serpent_ir.errors import DataError, ImageReadError
from serpent_ir.files import printable
from serpent_ir.images import content_hash, decode_pixels, image_size, read_content

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photograph:
    """A clean photograph in memory.

    name: where it lies in its folder or archive, without the path of the machine. pixels: uint8 (3, H, W).
    shrink: range of the random factor by which a crop of it is scaled down.
    degraded: uint8 (3, H, W), where the photograph comes with its own degraded version.
    hash: `content_hash` of the file it was read from, before any scaling; "" where it was not asked for.
    """

    name: str
    pixels: Tensor
    shrink: tuple[float, float] = (1.0, 1.0)
    degraded: Tensor | None = None
    hash: str = ""


class Content(Protocol):
    """The bytes of an image file, wherever they lie."""

    def length(self) -> int: ...

    def read(self) -> bytes:
        """Raises ImageReadError."""
        ...


@dataclass(frozen=True)
class File:
    """An image file of this machine."""

    path: Path

    def length(self) -> int:
        """0 where there is none."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def read(self) -> bytes:
        return read_content(self.path)


@dataclass(frozen=True)
class Entry:
    """A photograph that is not decoded yet.

    name, shrink: as in Photograph. clean, degraded: the files. side: the shorter side in pixels that larger photographs
    are scaled down to; None: none is. size, hash: (H, W) and content hash of `clean`, where they are known without
    decoding it.
    """

    name: str
    clean: Content
    degraded: Content | None = None
    shrink: tuple[float, float] = (1.0, 1.0)
    side: int | None = None
    size: tuple[int, int] | None = None
    hash: str = ""

    def photograph(self, hashed: bool = False) -> Photograph:
        """Decode it; with `hashed`, its hash as well. Raises ImageReadError, also for a pair of unequal sizes."""
        pixels = decode_pixels(self.clean.read(), self.name)
        identity = self.hash or (content_hash(pixels) if hashed else "")
        degraded = None
        if self.degraded is not None:
            degraded = decode_pixels(self.degraded.read(), self.name)
            if degraded.shape != pixels.shape:
                (height, width), (other_height, other_width) = pixels.shape[1:], degraded.shape[1:]
                came = f"pair {self.name}: clean is {width} x {height}, degraded {other_width} x {other_height}"
                raise ImageReadError(came, "equal sizes")
        if self.side is not None:
            height, width = pixels.shape[1:]
            pixels = scale_down(pixels, *scaled_size(height, width, self.side))
        return Photograph(self.name, pixels, self.shrink, degraded, identity)

    def decoded_bytes(self) -> tuple[int, int]:
        """How many bytes the photograph takes while it is decoded, and afterwards. Raises ImageReadError."""
        height, width = self.size or image_size(self.clean.read(), self.name)
        kept_height, kept_width = (height, width) if self.side is None else scaled_size(height, width, self.side)
        images = 1 if self.degraded is None else 2
        return 3 * height * width * images, 3 * kept_height * kept_width * images


class Photographs:
    """`photographs[index]` is a Photograph; entries are decoded when asked for, each time anew.

    Raises ImageReadError for one that cannot be read, and logs that once. An index keeps its meaning whether or not
    others can be read and whether they are decoded already: what is drawn by index does not depend on it.
    """

    def __init__(self, items: Sequence[Photograph | Entry | ImageReadError]) -> None:
        self.items = list(items)
        self.reported: set[int] = set()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Photograph:
        item = self.items[index]
        if isinstance(item, ImageReadError):
            raise item
        if isinstance(item, Photograph):
            return item
        try:
            return item.photograph()
        except ImageReadError as error:
            if index not in self.reported:
                self.reported.add(index)
                log.warning("skipped: %s", printable(str(error)))
            raise

    def readable(self) -> list[Photograph]:
        """All that can be read, decoded."""
        photographs = []
        for index in range(len(self)):
            with suppress(ImageReadError):  # logged above, or when it was found out
                photographs.append(self[index])
        return photographs

    @property
    def in_memory(self) -> bool:
        """Whether nothing is left to decode."""
        return not any(isinstance(item, Entry) for item in self.items)

    @property
    def paired(self) -> bool:
        """Whether the photographs come with their own degraded versions. Raises DataError when only some of them do."""
        kinds = {item.degraded is not None for item in self.items if not isinstance(item, ImageReadError)}
        if len(kinds) > 1:
            raise DataError("paired photographs are mixed with others that a task is to degrade", "one or the other")
        return kinds == {True}

    def hashes(self) -> list[str] | None:
        """Content hashes of all that can be read, sorted; None when that takes decoding."""
        if any(isinstance(item, Entry) and not item.hash for item in self.items):
            return None
        known = (item for item in self.items if not isinstance(item, ImageReadError))
        return sorted(item.hash or content_hash(item.pixels) for item in known)  # type: ignore[union-attr]


def content_key(photographs: Sequence[Photograph]) -> str:
    """Equal for equal photographs in the same order, whatever their names."""
    images = [image for one in photographs for image in (one.pixels, one.degraded) if image is not None]
    return hashlib.sha256("".join(map(content_hash, images)).encode()).hexdigest()


def scaled_size(height: int, width: int, side: int) -> tuple[int, int]:
    """The size with a shorter side of `side` and the same proportions; the same size where it is not larger."""
    shorter = min(height, width)
    if shorter <= side:
        return height, width
    return max(round(height * side / shorter), side), max(round(width * side / shorter), side)


def scale_down(pixels: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bicubic scaling of uint8 (C, H, W) to (C, height, width); the same tensor where it has that size."""
    if pixels.shape[1:] == (height, width):
        return pixels
    scaled = torch.nn.functional.interpolate(
        pixels.unsqueeze(0).float(), size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )
    return scaled[0].round_().clamp_(0, 255).to(torch.uint8)
