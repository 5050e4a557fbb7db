"""How an image goes through a model: in one piece, out of core, or in tiles, as memory allows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from serpent_ir.efficiency.memory import affordable
from serpent_ir.efficiency.pass_memory import pass_bytes
from serpent_ir.errors import RangeError, RestorationError, SerpentError, UnknownNameError
from serpent_ir.models.feature_maps import FileStore, MemoryStore, Store
from serpent_ir.models.out_of_core import ImageRows, OutOfCore, can_go_out_of_core, needed_bytes
from serpent_ir.models.serpent import Serpent
from serpent_ir.ops import use_backend
from serpent_ir.restoration.tiles import run_in_tiles

log = logging.getLogger(__name__)

MEBIBYTE = 2**20
WAYS = ("whole", "bands", "disk", "tiles")
"""In the order in which they are tried: in one piece; out of core, its maps in memory; out of core, its maps in files;
overlapping tiles. The first three give the same result, up to rounding."""

OVERLAP = 128
LARGEST_TILE = 2048
SMALLEST_TILE = 2 * OVERLAP
ROUNDED = 64
SMALL = 256 * 256
"""Images of at most so many pixels are never worth an estimate."""
BAND_BYTES = tuple(size * MEBIBYTE for size in (1, 2, 4, 8, 16, 32, 64, 128, 256))
BYTES_OF_RESULT = 4 * 3 * 4  # for each pixel: three channels of float32, a few times over, while it is finished


@dataclass(frozen=True)
class Evaluation:
    """One of `WAYS`, with what belongs to it; `bytes`: the memory it is expected to take."""

    way: str
    bytes: int
    band_bytes: int = 0
    tile: int = 0
    overlap: int = 0

    def __str__(self) -> str:
        text = {
            "whole": "in one piece",
            "bands": "in bands of rows, exactly",
            "disk": "in bands of rows, exactly, with feature maps on disk",
            "tiles": f"in tiles of {self.tile} with an overlap of {self.overlap} pixels",
        }[self.way]
        return f"{text}; {self.bytes / 1e9:.2g} GB expected" if self.bytes else text


class Planner:
    """Chooses for each size of image how it goes through `model`.

    channels, upscale: of the model. backend: of the scan, on which it will run. exact: in float32; bands are for
    nothing else. memory: bytes that may be taken; None: what is free when it is asked. way: one of `WAYS` to be taken
    in any case. tile, overlap: of tiles; None: as large as memory allows, at most 2048 or twice the overlap, and 128 or
    half a tile.

    Raises UnknownNameError for another way, RangeError for sizes that cannot be.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        channels: int,
        memory: int | None = None,
        way: str | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        *,
        upscale: int = 1,
        backend: str | None = None,
        exact: bool = True,
    ) -> None:
        self._model, self._device, self._channels = model, device, channels
        self._memory, self.way, self._tile = memory, way, tile
        self._upscale, self._backend, self._exact = upscale, backend, exact
        self.overlap = min(OVERLAP, OVERLAP if tile is None else tile // 2) if overlap is None else overlap
        if way is not None and way not in WAYS:
            raise UnknownNameError(f"no way {way!r} to put an image through a model", f"one of {', '.join(WAYS)}")
        if memory is not None and memory <= 0:
            raise RangeError(f"memory of {memory} bytes", "a positive number")
        if self.overlap < 0 or (tile is not None and tile < max(2 * self.overlap, 1)):
            raise RangeError(f"tiles of {tile} pixels with an overlap of {self.overlap}", "at least twice the overlap")
        if way in ("bands", "disk") and self.serpent() is None:
            raise RangeError(
                "this model cannot be evaluated in bands here",
                "a Serpent as it was made, in float32 on the CPU, with the native backend",
                "Take tiles.",
            )
        self.share = 1.0
        """Of what is free that may be taken: less when several processes take from it."""
        self._estimates: dict[tuple[int, int], int] = {}

    def settings(self) -> list[Any]:
        """What was asked for that decides a result; with bands, memory does not."""
        return [self.way, self._tile, self.overlap, self._memory if self.serpent() is None else None]

    def serpent(self) -> Serpent | None:
        """The model, if images can go through it in bands, to the result of one piece."""
        model = self._model
        with use_backend(self._backend):
            return model if self._exact and can_go_out_of_core(model) else None

    def room(self) -> float:
        """The bytes that may be taken now, of the device's memory."""
        free = self._memory if self._memory is not None else free_memory(self._device)
        return math.inf if free is None else free * self.share

    def room_for_pictures(self) -> float:
        """The bytes that may be taken now where pictures and results lie."""
        if self._device.type == "cpu":
            return self.room()
        free = affordable()
        return math.inf if free is None else free * self.share

    def fits_whole(self, height: int, width: int) -> bool:
        """Whether an image of that size can go through the model in one piece."""
        return self._estimate(height, width) + self.result_bytes(height, width) <= self.room()

    def result_bytes(self, height: int, width: int) -> int:
        """What the result of an image takes while it is finished."""
        return BYTES_OF_RESULT * height * width * self._upscale**2

    def choose(self, batch: int, height: int, width: int, reserved: int = 0) -> Evaluation:
        """The first of `WAYS` that memory allows, without `reserved` bytes. Raises RestorationError when none fits."""
        if self.way is None and batch * height * width <= SMALL:
            return Evaluation("whole", 0)
        room, result = self.room() - reserved, batch * self.result_bytes(height, width)
        if self.way in (None, "whole"):
            needed = batch * self._estimate(height, width) + result
            if self.way == "whole" or needed <= room:
                return Evaluation("whole", needed)
        if (serpent := self.serpent()) is not None:
            for way in ("bands", "disk"):
                if self.way in (None, way):
                    needed, band_bytes = bands_that_fit(serpent, height, width, way == "bands", room - result)
                    if self.way == way or needed + result <= room:
                        return Evaluation(way, needed + result, band_bytes)
        result = result if self._device.type == "cpu" else 0  # elsewhere tiles leave the device
        return self._tiles(height, width, room, lambda tile: result)

    def choose_by_rows(self, height: int, width: int) -> Evaluation:
        """For an image that is read and written some rows at a time: bands with maps on disk, or tiles.

        Raises RestorationError when neither fits.
        """
        room = self.room()
        serpent = self.serpent()
        if serpent is None or self.way == "tiles":
            return self._tiles(height, width, room, lambda tile: 2 * self.result_bytes(min(tile, height), width))
        needed, band_bytes = bands_that_fit(serpent, height, width, False, room)
        if needed > room:
            raise too_large(height, width, needed, room)
        return Evaluation("disk", needed, band_bytes)

    def _tiles(self, height: int, width: int, room: float, beside: Callable[[int], int]) -> Evaluation:
        """The largest tiles that fit. beside: the bytes that are needed beside a tile of that size."""
        smallest = max(SMALLEST_TILE, 2 * self.overlap)
        tile = self._tile or max(LARGEST_TILE, smallest)
        while True:
            needed = self._estimate(min(tile, height), min(tile, width)) + beside(tile)
            if needed <= room:
                return Evaluation("tiles", needed, tile=tile, overlap=self.overlap)
            if self._tile is not None or tile // 2 < smallest:
                raise too_large(height, width, needed, room)
            tile //= 2

    def _estimate(self, height: int, width: int) -> int:
        """Of sizes rounded up: a forecast can take a second, and a folder should need few of them."""
        size = -(-height // ROUNDED) * ROUNDED, -(-width // ROUNDED) * ROUNDED
        if size not in self._estimates:
            self._estimates[size] = self._forecast(*size)
        return self._estimates[size]

    def _forecast(self, height: int, width: int) -> int:
        try:
            with use_backend(self._backend):
                return pass_bytes(self._model, self._channels, height, width)
        except Exception as error:  # a module of the user's may do anything
            log.warning("what this model takes cannot be forecast, and is taken for nothing: %s", error)
            return 0


def too_large(height: int, width: int, needed: float, room: float) -> RestorationError:
    return RestorationError(
        f"an image of {width} x {height} pixels needs {needed / 1e9:.2g} GB of memory,"
        f" {max(room, 0) / 1e9:.2g} GB may be used",
        "more memory",
        "Free memory, or take a smaller model or image.",
    )


def bands_that_fit(model: Serpent, height: int, width: int, maps_in_memory: bool, room: float) -> tuple[int, int]:
    """The memory that bands take, and their size: the largest that fit, since each costs time, else the frugalest."""
    needed = {size: needed_bytes(model, height, width, size, maps_in_memory) for size in BAND_BYTES}
    fitting = [size for size in BAND_BYTES if needed[size] <= room]
    chosen = fitting[-1] if fitting else min(needed, key=needed.__getitem__)
    return needed[chosen], chosen


def free_memory(device: torch.device) -> int | None:
    """Nine tenths of the bytes that are free on a device; None where that is not known."""
    if device.type == "cpu":
        return affordable()
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.9 * (free + kept))
    return None


def run_in_parts(
    model: nn.Module,
    run: Callable[[Tensor], Tensor],
    image: ImageRows,
    write: Callable[[int, Tensor], None],
    evaluation: Evaluation,
    folder: Path | None = None,
    begin: int = 0,
    on_stage: Callable[[int, int], None] | None = None,
) -> None:
    """One image, not in one piece; `write` gets the rows of the result from top to bottom, not clipped.

    run: `model` on a tile (1, C, h, w). folder: for what is on disk; what is found there is continued. None: a
    temporary folder. begin: rows above this one are not needed, if in tiles. on_stage: is told how many stages of a
    pass out of core are done, and of how many.
    """
    if evaluation.way == "tiles":
        config = getattr(model, "config", None)
        multiple, upscale = getattr(config, "size_multiple", SMALLEST_TILE // 4), getattr(config, "upscale", 1)
        return run_in_tiles(run, image, write, evaluation.tile, evaluation.overlap, multiple, upscale, begin)
    if evaluation.way == "bands":
        return _run_out_of_core(model, image, write, MemoryStore(), evaluation, on_stage)
    try:
        with TemporaryDirectory(prefix="serpent-") if folder is None else nullcontext(folder) as place:
            _run_out_of_core(model, image, write, FileStore(Path(place)), evaluation, on_stage)
    except SerpentError:  # of the image's own files
        raise
    except OSError as error:
        raise RestorationError(
            f"feature maps cannot be kept on disk ({error.strerror or error})", "a writable folder with free space"
        ) from error


def _run_out_of_core(
    model: nn.Module,
    image: ImageRows,
    write: Callable[[int, Tensor], None],
    store: Store,
    evaluation: Evaluation,
    on_stage: Callable[[int, int], None] | None,
) -> None:
    if not can_go_out_of_core(model):
        raise RestorationError(
            "the model changed since it was decided to evaluate it in bands, or the backend of the scan did",
            "a Serpent as it was made, on the CPU, with the native backend",
        )
    OutOfCore(model, image, write, store, evaluation.band_bytes).run(on_stage)
