"""Serpent: multi-scale image restoration with four-direction selective scans (arXiv 2403.17902, section 3).

Leaf to root: GatedConvBlock -> VSSBlock -> PatchMerging, PatchExpanding -> SerpentConfig -> Serpent. Feature maps are
channels-last, (B, H, W, C), everywhere inside; images are (B, 3, H, W) at the door.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import RangeError
from serpent_ir.models.bands import (
    Projection,
    bands,
    can_go_in_bands,
    is_plain,
    layer_norm,
    may_overwrite,
    pixel_bands,
)
from serpent_ir.models.padding import crop, pad_to_multiple
from serpent_ir.ops import native_block, selective_scan_2d
from serpent_ir.ops.block import conv_silu, norm_gate


def parameters_of(module: nn.Conv2d | nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Its weight and its bias."""
    assert module.bias is not None  # for type checkers
    return module.weight, module.bias


class GatedConvBlock(nn.Module):
    """x + out_proj(LayerNorm(SiLU(DWConv3x3(a))) * SiLU(z)) with [a, z] = in_proj(LayerNorm(x)), `inner` channels wide.

    (B, H, W, c) to the same: a VSS block without its scan.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.scan_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """With `overwrite` the result may, without gradients, take the place of x."""
        if can_go_in_bands(x, self.norm, self.in_proj, self.conv, self.scan_norm, self.out_proj):
            x = x.contiguous() if overwrite else x.clone(memory_format=torch.contiguous_format)
            numbers = self.out_proj.out_features + 2 * self.out_proj.in_features
            return self._at_once(x) if len(bands(x, numbers)) == 1 else self._in_bands(x)
        normal = self.norm(x)
        if is_plain(self.in_proj):  # as two products, whose gradients need not be put side by side
            a, z = (F.linear(normal, half) for half in self.in_proj.weight.chunk(2))
        else:
            a, z = self.in_proj(normal).chunk(2, dim=-1)
        if is_plain(self.conv):
            a = conv_silu(a, *parameters_of(self.conv))
        else:
            a = F.silu(self.conv(a.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        y = self.scan(a)
        if is_plain(self.scan_norm):
            return x + self.out_proj(norm_gate(y, z, *parameters_of(self.scan_norm), self.scan_norm.eps))
        return x + self.out_proj(self.scan_norm(y) * F.silu(z))

    def _at_once(self, x: Tensor) -> Tensor:
        """`forward` in place of x, for a map so small that a and z stay in the cache."""
        inner, channels = self.out_proj.in_features, self.out_proj.out_features
        pixels, wide = x.view(-1, channels), x.new_empty(*x.shape[:3], 2 * inner)
        Projection(self.norm, self.in_proj.weight.t())(pixels, wide.view(-1, 2 * inner))
        a, z = wide.chunk(2, dim=-1)
        y = self.scan(native_block.convolve(a, *parameters_of(self.conv), x.new_empty(*x.shape[:3], inner)))
        native_block.gate(y, z, *parameters_of(self.scan_norm), self.scan_norm.eps, y)
        pixels.addmm_(y.view(-1, inner), self.out_proj.weight.t())
        return x

    def _in_bands(self, x: Tensor) -> Tensor:
        """`forward` in place of x. z is computed after the scan: until then x is there, and no map is held for z."""
        return self.gate_in_place(x, self.scan(self.convolved(x)))

    def gate_in_place(self, x: Tensor, y: Tensor) -> Tensor:
        """What follows the scan, in place of x and y (both dense): x + out_proj(LayerNorm(y) * SiLU(z)).

        Like `convolved` a part of `forward` for callers who know that the block `can_go_in_bands`.
        """
        inner, channels = self.out_proj.in_features, self.out_proj.out_features
        project, back = Projection(self.norm, self.in_proj.weight[inner:].t()), self.out_proj.weight.t()
        norm, epsilon = parameters_of(self.scan_norm), self.scan_norm.eps
        buffer = None
        for rows, gated in zip(*pixel_bands(channels + inner, x, y), strict=True):
            if buffer is None or len(buffer) != len(rows):
                buffer = torch.empty_like(gated)
            native_block.gate(gated, project(rows, buffer), *norm, epsilon, gated)
            rows.addmm_(gated, back)
        return x

    def convolved(self, x: Tensor) -> Tensor:
        """SiLU(DWConv3x3(a)), (B, H, W, inner); of a there is never more than a band and the rows next to it."""
        inner, channels, height = self.out_proj.in_features, self.out_proj.out_features, x.shape[1]
        result = x.new_empty(*x.shape[:3], inner)
        parts = bands(x, channels + inner)
        project = Projection(self.norm, self.in_proj.weight[:inner].t())
        around = int(len(parts) > len(x))  # rows above and below that a band needs, when images are cut
        images, rows = parts[0]
        buffer = x.new_empty(images.stop, rows.stop + 2 * around, x.shape[2], inner)
        for images, rows in parts:
            first, last = rows.start, rows.stop
            start, end = first, min(last + around, height)  # the rows of a that are still to be computed
            if first:
                buffer[:, :2] = buffer[:, -2:]  # the last row of the band before, and the row below it
                start = first + 1
            a = buffer[: images.stop - images.start]
            top = first - around
            if start < end:
                project(x[images, start:end].view(-1, channels), a[:, start - top : end - top].view(-1, inner))
            native_block.convolve(
                a[:, first - top : last - top],
                *parameters_of(self.conv),
                result[images, rows],
                first > 0,
                last < height,
            )
        return result

    def scan(self, a: Tensor) -> Tensor:
        """What a VSS block does between convolution and norm: nothing here."""
        return a


class VSSBlock(GatedConvBlock):
    """x + out_proj(LayerNorm(SS2D(SiLU(DWConv3x3(a)))) * SiLU(z)) with [a, z] = in_proj(LayerNorm(x)).

    (B, H, W, c) to the same. Paper, figure 2; the scan is initialised as in S4D-real and Mamba (ops/README.md).
    """

    def __init__(self, channels: int, directions: int, expansion: int, states: int, rank: int) -> None:
        inner = expansion * channels
        super().__init__(channels, inner)
        self.sizes = (rank, states, states)
        self.directions = directions
        self.x_proj = nn.Linear(inner, directions * sum(self.sizes), bias=False)
        self.dt_weight = nn.Parameter((torch.rand(directions, inner, rank) * 2 - 1) * rank**-0.5)
        step = torch.exp(torch.empty(directions, inner).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus(dt_bias) = step
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(directions, inner, 1))
        self.D = nn.Parameter(torch.ones(directions, inner))

    def scan(self, a: Tensor) -> Tensor:
        dt_low, B, C = self.rows(a)
        return selective_scan_2d(a, dt_low, B, C, self.dt_weight, self.dt_bias, self.A, self.D)

    def rows(self, a: Tensor) -> tuple[Tensor, ...]:
        """dt_low, B and C, (..., K, R or N), of a (..., D)."""
        # One matrix product for all directions: a pointwise projection does not depend on the order of the scan.
        return self.x_proj(a).unflatten(-1, (self.directions, -1)).split(self.sizes, dim=-1)

    @property
    def A(self) -> Tensor:
        """(K, D, N), negative, float32 at least."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))


class Blocks(nn.Sequential):
    """Blocks one after the other: (B, H, W, c) to the same."""

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """With `overwrite` the result may, without gradients, take the place of x."""
        for block in self:
            ours = isinstance(
                block, GatedConvBlock
            )  # what has replaced one may keep what it gives, or give what it got
            x = block(x, overwrite) if ours else block(x)
            overwrite = overwrite and ours
        return x


def twin_width(channels: int, directions: int, expansion: int, states: int, rank: int) -> int:
    """The inner width that gives a GatedConvBlock as many parameters as the VSSBlock of these sizes, within 0.5 %."""
    inner, reduced = expansion * channels, rank + 2 * states
    per_channel = 3 * channels + 12  # two projections in, one out; 9 + 1 of the convolution, 2 of its norm
    scan = inner * directions * (reduced + rank + 1 + states + 1)  # x_proj, dt_weight, dt_bias, A_log, D
    return inner + round(scan / per_channel)


class PatchMerging(nn.Module):
    """2 x 2 neighbours concatenated, LayerNorm, linear: (B, H, W, c), H and W even, to (B, H/2, W/2, 2c).

    Paper, section 3.3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.linear = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)  # (B, H/2, W/2, 2, 2, c)
        if can_go_in_bands(x, self.norm, self.linear):
            return self._in_bands(x)
        return self.linear(self.norm(x.flatten(3)))

    def _in_bands(self, x: Tensor) -> Tensor:
        result = x.new_empty(*x.shape[:3], self.linear.out_features)
        parts = bands(x, self.linear.in_features)
        buffer = x.new_empty(x[parts[0]].shape)
        for part in parts:
            merged = buffer[: len(result[part]), : result[part].shape[1]]
            merged.copy_(x[part])
            merged = merged.flatten(3)
            layer_norm(self.norm, merged, merged)
            torch.mm(
                merged.view(-1, self.linear.in_features),
                self.linear.weight.t(),
                out=result[part].view(-1, self.linear.out_features),
            )
        return result


class PatchExpanding(nn.Module):
    """Linear c to 2c, pixels rearranged to 2 x 2, LayerNorm: (B, H, W, c) to (B, 2H, 2W, c/2). Paper, section 3.3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, x: Tensor, onto: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """Added to `onto` (B, 2H, 2W, c/2) when that is given; with `overwrite` the sum may take its place."""
        batch, height, width, channels = x.shape
        if overwrite and onto is not None and onto.is_contiguous() and can_go_in_bands(x, self.norm, self.linear):
            return self._in_bands(x.contiguous(), onto)
        x = self.linear(x).view(batch, height, width, 2, 2, channels // 2).transpose(2, 3)
        x = self.norm(x.reshape(batch, 2 * height, 2 * width, channels // 2))
        return x if onto is None else x + onto

    def _in_bands(self, x: Tensor, onto: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        to = onto.view(batch, height, 2, width, 2, channels // 2).transpose(2, 3)  # (B, H, W, 2, 2, c/2)
        parts = bands(x, 2 * channels)
        buffer = x.new_empty(to[parts[0]].shape)
        for part in parts:
            wide = buffer[: len(to[part]), : to[part].shape[1]]
            torch.mm(x[part].view(-1, channels), self.linear.weight.t(), out=wide.view(-1, 2 * channels))
            to[part].add_(layer_norm(self.norm, wide, wide))
        return onto


def to_patches(image: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to (B, H / patch, W / patch, C patch^2), in F.pixel_unshuffle's order, but faster."""
    batch, channels, height, width = image.shape
    x = image.reshape(batch, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, height // patch, width // patch, channels * patch**2)


def from_patches(x: Tensor, patch: int) -> Tensor:
    """What `to_patches` undoes: (B, h, w, C patch^2) to (B, C, h patch, w patch)."""
    batch, height, width, numbers = x.shape
    channels = numbers // patch**2
    image = x.view(batch, height, width, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return image.reshape(batch, channels, height * patch, width * patch)


@dataclass(frozen=True)
class SerpentConfig:
    """Everything that defines a Serpent. Scale s (0, 1, 2, ...) has `embed_channels * 2**s` channels.

    `depths_down[s]` VSS blocks precede the merging of scale s, `depth_bottleneck` stand at the coarsest scale, and
    `depths_up[s]` follow the expanding to scale s and its skip. The published arrangement has none at scale 0; a
    symmetric decoder is `depths_up=depths_down`.
    """

    name: str = "serpent-b"
    patch_size: int = 4
    in_channels: int = 3
    out_channels: int = 3
    embed_channels: int = 32
    depths_down: tuple[int, ...] = (2, 2, 3)
    depth_bottleneck: int = 3
    depths_up: tuple[int, ...] = (0, 2, 2)
    block: str = "vss"  # or "conv": the convolutional twin, blocks without a scan and with as many parameters
    directions: int = 4
    expansion: int = 2
    channels_per_state: int = 6  # N = ceil(c / 6), the paper's "hidden dimension c/6"
    channels_per_rank: int = 16  # R = ceil(c / 16)
    skip: str = "add"  # or "concat": concatenation and a linear layer
    input_skip: bool = False  # add the input image to the output; a new model then is the identity

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths_down", tuple(self.depths_down))  # a JSON file has lists
        object.__setattr__(self, "depths_up", tuple(self.depths_up))
        if len(self.depths_down) != len(self.depths_up):
            raise RangeError(
                f"depths_down={self.depths_down}, depths_up={self.depths_up}", "one depth per scale in both"
            )
        if self.directions not in (1, 2, 4):
            raise RangeError(f"directions={self.directions}", "1, 2 or 4")
        if self.block not in ("vss", "conv"):
            raise RangeError(f"block={self.block!r}", "'vss' or 'conv'")
        if self.skip not in ("add", "concat"):
            raise RangeError(f"skip={self.skip!r}", "'add' or 'concat'")
        sizes = ("patch_size", "in_channels", "out_channels", "embed_channels", "expansion")
        for name in (*sizes, "channels_per_state", "channels_per_rank"):
            if getattr(self, name) < 1:
                raise RangeError(f"{name}={getattr(self, name)}", "1 or more")
        if not all(0 <= depth <= 256 for depth in (*self.depths_down, *self.depths_up, self.depth_bottleneck)):
            raise RangeError(f"depths {self.depths_down}, {self.depth_bottleneck}, {self.depths_up}", "0 to 256 each")
        if self.input_skip and self.in_channels < self.out_channels:
            raise RangeError(f"input_skip with {self.in_channels} channels in", f"at least {self.out_channels}")

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return self.patch_size * 2 ** len(self.depths_down)


class Serpent(nn.Module):
    """(B, in_channels, H, W) in [0, 1] to (B, out_channels, H, W), any H, W >= 1; float32 or bfloat16.

    Images are reflect-padded at the bottom and the right to a multiple of `config.size_multiple`; the result is
    cropped. The output is not clipped. Raises `ShapeError` for another number of dimensions or channels.
    """

    def __init__(self, config: SerpentConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.embed_channels, config.patch_size
        scales = range(len(config.depths_down))
        self.embed = nn.Linear(config.in_channels * patch**2, width)
        self.down = nn.ModuleList(self._blocks(width * 2**s, config.depths_down[s]) for s in scales)
        self.merge = nn.ModuleList(PatchMerging(width * 2**s) for s in scales)
        self.bottleneck = self._blocks(width * 2 ** len(scales), config.depth_bottleneck)
        self.expand = nn.ModuleList(PatchExpanding(width * 2 ** (s + 1)) for s in scales)
        if config.skip == "concat":
            self.fuse = nn.ModuleList(nn.Linear(2 * width * 2**s, width * 2**s, bias=False) for s in scales)
        self.up = nn.ModuleList(self._blocks(width * 2**s, config.depths_up[s]) for s in scales)
        self.head = nn.Linear(width, config.out_channels * patch**2)
        if config.input_skip:  # begins as the identity
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def _blocks(self, channels: int, depth: int) -> Blocks:
        config = self.config
        states, rank = -(-channels // config.channels_per_state), -(-channels // config.channels_per_rank)
        sizes = (channels, config.directions, config.expansion, states, rank)
        if config.block == "conv":
            return Blocks(*(GatedConvBlock(channels, twin_width(*sizes)) for _ in range(depth)))
        return Blocks(*(VSSBlock(*sizes) for _ in range(depth)))

    def forward(self, image: Tensor) -> Tensor:
        config = self.config
        padded = pad_to_multiple(image, config.in_channels, config.size_multiple)
        overwrite = may_overwrite(self)
        x = self.embed(to_patches(padded, config.patch_size))
        skips = []
        for blocks, merge in zip(self.down, self.merge, strict=True):
            x = blocks(x, overwrite=overwrite)
            skips.append(x)
            x = merge(x)
        x = self.bottleneck(x, overwrite=overwrite)
        for s in reversed(range(len(skips))):
            if config.skip == "add":
                x = self.expand[s](x, onto=skips.pop(), overwrite=overwrite)
            else:
                x = self.fuse[s](torch.cat([self.expand[s](x), skips.pop()], dim=-1))
            x = self.up[s](x, overwrite=overwrite)
        output = from_patches(self.head(x), config.patch_size)
        if config.input_skip:
            output = output + padded[:, : config.out_channels]
        return crop(output, image)
