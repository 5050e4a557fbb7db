"""Serpent on an image of any size in little memory, to the same result as in one piece.

A feature map is worked on in bands of rows; whole maps are held by a store, in memory or in files. What a VSS block
takes from outside a band is exact: the rows next to it for the convolution, and the states of the scan
(ops/band_scan.py), for which each block goes over its map twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from serpent_ir.models.bands import can_go_in_bands, is_watched
from serpent_ir.models.feature_maps import FeatureMap, Store
from serpent_ir.models.padding import mirrored
from serpent_ir.models.serpent import (
    Blocks,
    GatedConvBlock,
    PatchExpanding,
    PatchMerging,
    Serpent,
    VSSBlock,
    from_patches,
    to_patches,
)
from serpent_ir.ops.band_scan import BandScan

Stage = Callable[[], None]

STATES_AT_ONCE = 5  # as many as the columns of a map have in one direction, held by BandScan while it is called
NUMBERS_AT_THE_END = 9  # held for each of the model's: whoever takes the result works on it
BUFFERS_OF_BAND = 1.5  # of band_bytes, with what is copied on the way


class ImageRows(Protocol):
    """An image that is read row by row, float32."""

    channels: int
    height: int
    width: int

    def read(self, first: int, end: int) -> Tensor:
        """(channels, end - first, W): the rows from `first` up to `end`."""
        ...


KNOWN = (Serpent, Blocks, VSSBlock, GatedConvBlock, PatchMerging, PatchExpanding)
PLAIN = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.ModuleList)


def can_go_out_of_core(model: nn.Module) -> TypeGuard[Serpent]:
    """Whether `OutOfCore` takes the model: a Serpent as it was made, float32 on the CPU, with the native backend."""
    if type(model) is not Serpent or model.embed.weight.dtype != torch.float32:
        return False
    if any(type(module) not in (*KNOWN, *PLAIN) or is_watched(module) for module in model.modules()):
        return False
    blocks = (module for module in model.modules() if isinstance(module, GatedConvBlock))
    with torch.inference_mode():
        sample = model.embed.weight.detach()
        return all(can_go_in_bands(sample, b.norm, b.in_proj, b.conv, b.scan_norm, b.out_proj) for b in blocks)


def needed_bytes(model: Serpent, height: int, width: int, band_bytes: int, maps_in_memory: bool) -> int:
    """The memory that a pass takes at its peak beside model, image and result."""
    config = model.config
    multiple, patch = config.size_multiple, config.patch_size
    rows, columns = (-(-size // multiple) * multiple // patch for size in (height, width))
    peak = maps = 0
    for scale in range(len(config.depths_down) + 1):
        channels = config.embed_channels * 2**scale
        maps += 4 * channels * rows * columns
        members = model.bottleneck if scale == len(config.depths_down) else model.down[scale]
        blocks = [*members.children()]
        states = 0
        if blocks and isinstance(blocks[0], VSSBlock) and blocks[0].directions == 4:
            bands = -(-rows // band_rows(rows, columns, block_numbers(blocks[0]), band_bytes))
            segments = (bands if maps_in_memory else 0) + STATES_AT_ONCE
            states = 4 * columns * blocks[0].A_log[0].numel() * segments if bands > 1 else 0
        peak = max(peak, (maps if maps_in_memory else 0) + states)
        rows, columns = rows // 2, columns // 2
    return peak + int(BUFFERS_OF_BAND * band_bytes)


def block_numbers(block: GatedConvBlock) -> int:
    """How many numbers the buffers of a band hold for each of its pixels."""
    inner = block.out_proj.in_features
    return block.out_proj.out_features + 2 * inner + (block.x_proj.out_features if isinstance(block, VSSBlock) else 0)


def band_rows(height: int, width: int, numbers: int, band_bytes: int) -> int:
    """How many rows a band has, so that bands are about equal and their buffers take `band_bytes`, but two at least."""
    count = max(2, band_bytes // (4 * numbers * width))
    return -(-height // -(-height // count))


class OutOfCore:
    """One pass of a Serpent over one image, stage by stage.

    model: for which `can_go_out_of_core`. image: (in_channels, H, W). write: is given the rows of the result, float32
    (out_channels, n, W), not clipped, from top to bottom, with the number of the first. store: empty, or that of a pass
    over the same image with the same model that was stopped. band_bytes: what the buffers of a band may take, roughly.
    """

    def __init__(
        self, model: Serpent, image: ImageRows, write: Callable[[int, Tensor], None], store: Store, band_bytes: int
    ) -> None:
        self._model, self._image, self._write, self._store = model, image, write, store
        self._band_bytes = band_bytes
        multiple = model.config.size_multiple
        self._height, self._width = (-(-size // multiple) * multiple for size in (image.height, image.width))

    def run(self, on_stage: Callable[[int, int], None] | None = None) -> None:
        """Do the stages that are still to be done. on_stage: is told how many are done, and of how many."""
        stages = self.stages()
        with torch.inference_mode():
            while self._store.done < len(stages):
                if on_stage is not None:
                    on_stage(self._store.done, len(stages))
                stages[self._store.done]()

    def stages(self) -> list[Stage]:
        """Each leaves the store with the maps that the next one needs."""
        model, scales = self._model, range(len(self._model.merge))

        def blocks(scale: int, members: nn.Module) -> list[Stage]:
            return [partial(self._block, scale, block) for block in members.children()]

        stages: list[Stage] = [self._embed]
        for s in scales:
            stages += [*blocks(s, model.down[s]), partial(self._merge, s)]
        stages += blocks(len(scales), model.bottleneck)
        for s in reversed(scales):
            stages += [partial(self._expand, s), *blocks(s, model.up[s])]
        return [*stages, self._head]

    def _embed(self) -> None:
        model, patch = self._model, self._model.config.patch_size
        to = self._store.create(map_name(0), self._height // patch, self._width // patch, model.config.embed_channels)
        for first, end in self._bands(to, 4 * model.embed.in_features):
            to.write(first, model.embed(to_patches(self._padded(first * patch, end * patch)[None], patch))[0])
        self._store.complete()

    def _padded(self, first: int, end: int) -> Tensor:
        """(C, end - first, padded width) of the image, mirrored at the bottom and the right."""
        image = self._image
        rows = mirrored(torch.arange(first, end), image.height)
        low = int(rows.min())
        part = image.read(low, int(rows.max()) + 1)
        if len(rows) != part.shape[1] or end > image.height:
            part = part.index_select(1, rows - low)
        if self._width > image.width:
            part = part.index_select(2, mirrored(torch.arange(self._width), image.width))
        return part

    def _block(self, scale: int, block: Any) -> None:
        old = self._store.get(map_name(scale))
        parts = list(self._bands(old, block_numbers(block)))
        new = self._store.renewed(map_name(scale))
        if len(parts) == 1:
            new.write(0, block(old.read(0, old.height)[None], overwrite=True)[0])
            return self._store.complete()
        scan = None
        if isinstance(block, VSSBlock):
            scan = BandScan(old.width, block.dt_weight, block.dt_bias, block.A, block.D, self._store.states())
            for first, end in parts:
                a = convolved(block, old, first, end, None)
                scan.survey(a, *block.rows(a))
        above = None
        for first, end in parts:
            a = convolved(block, old, first, end, above)
            x = old.read(first, end)
            above = x[-1:].clone()  # the next band needs it as it is now
            y = a if scan is None else scan.scan(a, *block.rows(a))
            new.write(first, block.gate_in_place(x[None], y[None])[0])
        self._store.complete()

    def _merge(self, scale: int) -> None:
        old, merge = self._store.get(map_name(scale)), self._model.merge[scale]
        to = self._store.create(map_name(scale + 1), old.height // 2, old.width // 2, 2 * old.channels)
        for first, end in self._bands(to, 8 * old.channels):
            to.write(first, merge(old.read(2 * first, 2 * end)[None])[0])
        self._store.complete()

    def _expand(self, scale: int) -> None:
        """The map of this scale, its skip, gets what comes from the coarser one, which is not needed any more."""
        below, skip, model = self._store.get(map_name(scale + 1)), self._store.get(map_name(scale)), self._model
        to = self._store.renewed(map_name(scale))
        for first, end in self._bands(below, 4 * below.channels):
            x, onto = below.read(first, end)[None], skip.read(2 * first, 2 * end)[None]
            if model.config.skip == "add":
                result = model.expand[scale](x, onto=onto, overwrite=True)
            else:
                result = model.fuse[scale](torch.cat([model.expand[scale](x), onto], dim=-1))
            to.write(2 * first, result[0])
        self._store.complete(map_name(scale + 1))

    def _head(self) -> None:
        old, model, patch = self._store.get(map_name(0)), self._model, self._model.config.patch_size
        height, width = self._image.height, self._image.width
        for first, end in self._bands(old, NUMBERS_AT_THE_END * model.head.out_features):
            top, bottom = first * patch, min(end * patch, height)
            if top >= height:
                break
            output = from_patches(model.head(old.read(first, end)[None]), patch)[0, :, : bottom - top, :width]
            if model.config.input_skip:
                output = output + self._image.read(top, bottom)[: len(output)]
            self._write(top, output)
        self._store.complete(map_name(0))

    def _bands(self, rows_of: FeatureMap, numbers: int) -> Iterator[tuple[int, int]]:
        """First and end of each band. numbers: those that its buffers hold for a pixel."""
        count = band_rows(rows_of.height, rows_of.width, numbers, self._band_bytes)
        for first in range(0, rows_of.height, count):
            yield first, min(first + count, rows_of.height)


def map_name(scale: int) -> str:
    return f"scale{scale}"


def convolved(block: GatedConvBlock, x: FeatureMap, first: int, end: int, above: Tensor | None) -> Tensor:
    """(end - first, W, inner): what the convolution of a block makes of these rows of the map x.

    above: the row before `first`, where the map has another one by now.
    """
    top, bottom = max(first - 1, 0), min(end + 1, x.height)
    rows = x.read(top, bottom) if above is None else torch.cat([above, x.read(first, bottom)])
    return block.convolved(rows[None])[0, first - top : end - top]
