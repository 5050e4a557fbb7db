"""Images that are read a few rows at a time: a tensor, and one that is enlarged on the way."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from serpent_ir.models.out_of_core import ImageRows
from serpent_ir.tasks import enlarge

REACH = 3  # rows around a row that bicubic interpolation looks at, and one to spare


class TensorRows:
    """The rows of a tensor (C, H, W)."""

    def __init__(self, image: Tensor) -> None:
        self.channels, self.height, self.width = image.shape
        self._image = image

    def read(self, first: int, end: int) -> Tensor:
        return self._image[:, first:end]


class EnlargedRows:
    """`image` enlarged by bicubic interpolation, as `tasks.enlarge` does, but for a few rows at a time."""

    def __init__(self, image: ImageRows, factor: int) -> None:
        self._image, self._factor = image, factor
        self.channels, self.height, self.width = image.channels, image.height * factor, image.width * factor

    def read(self, first: int, end: int) -> Tensor:
        if self._factor == 1:
            return self._image.read(first, end)
        top = max(first // self._factor - REACH, 0)
        bottom = min(-(-end // self._factor) + REACH, self._image.height)
        part = enlarge(self._image.read(top, bottom)[None], self._factor)[0]
        return part[:, first - top * self._factor : end - top * self._factor]


class MappedRows:
    """The rows of `image` through a pointwise function, (C, n, W) to (channels, n, W)."""

    def __init__(self, image: ImageRows, function: Callable[[Tensor], Tensor], channels: int) -> None:
        self._image, self._function, self.channels = image, function, channels
        self.height, self.width = image.height, image.width

    def read(self, first: int, end: int) -> Tensor:
        return self._function(self._image.read(first, end))
