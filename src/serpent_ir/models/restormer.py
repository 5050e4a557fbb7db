"""Restormer: transformer blocks whose attention is over channels (arXiv 2111.09881).

Leaf to root: LayerNorm -> ChannelAttention, GatedFeedForward -> Block -> Downsample, Upsample -> RestormerConfig ->
Restormer -> from_published. Feature maps are (B, C, H, W), as torch's convolutions take them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import RangeError
from serpent_ir.models.padding import crop, pad_to_multiple


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + 1e-5) * weight + bias over the channels of each pixel: (B, C, H, W) to the same.

    Without bias x / sqrt(variance + 1e-5) * weight, which is not centred (why without: arXiv 1906.05478). The variance
    is the population's. Spelled out as in the published cost, which counts pointwise functions here and no LayerNorm.
    """

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-5)
        if self.bias is None:
            return x * scale * self.weight[:, None, None]
        return centred * scale * self.weight[:, None, None] + self.bias[:, None, None]


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention (MDTA): softmax(temperature q k') v over the C / heads channels of a head.

    (B, C, H, W) to the same, with q, k, v = DWConv3x3(Conv1x1(x)), q and k of norm 1 over the pixels, one learned
    temperature per head, and a 1x1 convolution at the end. Paper, equations 1 and 2; linear in the number of pixels.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        heads = len(self.temperature)
        q, k, v = self.qkv_dwconv(self.qkv(x)).flatten(2).unflatten(1, (3, heads, -1)).unbind(1)
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        attention = (attention * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ v).view(x.shape))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network (GDFN): Conv1x1(GELU(a) * b) with [a, b] = DWConv3x3(Conv1x1(x)).

    (B, C, H, W) to the same; a and b have `hidden` channels. Paper, equation 3.
    """

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


class Block(nn.Module):
    """x + MDTA(norm(x)), then x + GDFN(norm(x)): (B, C, H, W) to the same."""

    def __init__(self, channels: int, heads: int, hidden: int, bias: bool, norm_bias: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, norm_bias)
        self.attn = ChannelAttention(channels, heads, bias)
        self.norm2 = LayerNorm(channels, norm_bias)
        self.ffn = GatedFeedForward(channels, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Downsample(nn.Sequential):
    """3x3 convolution and pixel-unshuffle: (B, C, H, W), H and W even, to (B, 2 C, H/2, W/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


class Upsample(nn.Sequential):
    """3x3 convolution and pixel-shuffle: (B, C, H, W) to (B, C/2, 2 H, 2 W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2))


@dataclass(frozen=True)
class RestormerConfig:
    """Everything that defines a Restormer. Level s (0, 1, 2, 3) has `dim * 2**s` channels.

    `blocks[s]` and `heads[s]` hold on the way down and on the way up; `blocks[3]` stand at the coarsest level. On the
    way up level 0 has twice its channels, since its skip is concatenated and not reduced; the refinement has them too.
    """

    name: str = "restormer"
    in_channels: int = 3
    out_channels: int = 3
    dim: int = 48
    blocks: tuple[int, ...] = (4, 6, 6, 8)
    refinement_blocks: int = 4
    heads: tuple[int, ...] = (1, 2, 4, 8)
    ffn_factor: float = 2.66  # the feed-forward network has int(channels * ffn_factor) hidden channels
    bias: bool = False  # of the convolutions
    layer_norm: str = "with-bias"  # or "bias-free"
    dual_pixel: bool = False  # for two views: no image is added to the output, but its first features to the last

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))  # a JSON file has lists
        object.__setattr__(self, "heads", tuple(self.heads))
        if len(self.blocks) != 4 or len(self.heads) != 4:
            raise RangeError(f"blocks={self.blocks}, heads={self.heads}", "four levels in both")
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) < 1:
                raise RangeError(f"{name}={getattr(self, name)}", "1 or more")
        if self.dim < 2 or self.dim % 2:
            raise RangeError(f"dim={self.dim}", "an even number")
        if not all(0 <= depth <= 256 for depth in (*self.blocks, self.refinement_blocks)):
            raise RangeError(f"{self.blocks} blocks and {self.refinement_blocks} for refinement", "0 to 256 each")
        if any(heads < 1 or self.dim * 2**level % heads for level, heads in enumerate(self.heads)):
            raise RangeError(f"heads={self.heads} with dim={self.dim}", "divisors of dim, 2 dim, 4 dim, 8 dim")
        if not 1 / self.dim <= self.ffn_factor <= 1000:
            raise RangeError(f"ffn_factor={self.ffn_factor} with dim={self.dim}", "1 / dim to 1000")
        if self.layer_norm not in ("with-bias", "bias-free"):
            raise RangeError(f"layer_norm={self.layer_norm!r}", "'with-bias' or 'bias-free'")
        if self.in_channels < self.out_channels and not self.dual_pixel:
            raise RangeError(
                f"{self.in_channels} channels in, {self.out_channels} out", "no more out than in: the image is added"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return 2 ** (len(self.blocks) - 1)


class Restormer(nn.Module):
    """(B, in_channels, H, W) in [0, 1] to (B, out_channels, H, W), any H, W >= 1; float32 or bfloat16.

    Images are reflect-padded at the bottom and the right to a multiple of `config.size_multiple`; the result is
    cropped. The output is not clipped. What attention weighs channels by comes from the whole (padded) image, so that
    an image in tiles gives another result. Raises `ShapeError` for another number of dimensions or channels.
    """

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__()
        self.config = config
        dim, (*blocks, latent) = config.dim, config.blocks
        widths = [dim * 2**level for level in range(len(blocks))]
        widths_up = [2 * dim, *widths[1:]]
        self.patch_embed = nn.Conv2d(config.in_channels, dim, 3, padding=1, bias=False)
        self.encoder = nn.ModuleList(self._blocks(level, width, blocks[level]) for level, width in enumerate(widths))
        self.down = nn.ModuleList(Downsample(width) for width in widths)
        self.latent = self._blocks(len(blocks), 2 * widths[-1], latent)
        self.up = nn.ModuleList(Upsample(2 * width) for width in widths)
        self.reduce = nn.ModuleList(
            nn.Conv2d(2 * width, width, 1, bias=config.bias) if level else nn.Identity()
            for level, width in enumerate(widths)
        )
        self.decoder = nn.ModuleList(self._blocks(level, width, blocks[level]) for level, width in enumerate(widths_up))
        self.refinement = self._blocks(0, 2 * dim, config.refinement_blocks)
        if config.dual_pixel:
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=config.bias)
        self.output = nn.Conv2d(2 * dim, config.out_channels, 3, padding=1, bias=config.bias)

    def _blocks(self, level: int, channels: int, depth: int) -> nn.Sequential:
        config = self.config
        hidden, norm_bias = int(channels * config.ffn_factor), config.layer_norm == "with-bias"
        return nn.Sequential(
            *(Block(channels, config.heads[level], hidden, config.bias, norm_bias) for _ in range(depth))
        )

    def forward(self, image: Tensor) -> Tensor:
        config = self.config
        padded = pad_to_multiple(image, config.in_channels, config.size_multiple)
        x = self.patch_embed(padded)
        features = x if config.dual_pixel else None
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.latent(x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.reduce[level](torch.cat([self.up[level](x), skips.pop()], dim=1)))
        x = self.refinement(x)
        if features is not None:
            return crop(self.output(x + self.skip_conv(features)), image)
        return crop(self.output(x) + padded[:, : config.out_channels], image)


PUBLISHED_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Configuration (all fields but `name`) and tensors, under the names used here, of a state dict of the authors'.

    Everything is recognised from names and shapes; `ffn_factor` is the shortest decimal number that gives the hidden
    channels found. That all tensors fit shows only when they are loaded. None when the names are not Restormer's.
    """
    dimensions = {"patch_embed.proj.weight": 4, "output.weight": 4}
    for level in PUBLISHED_LEVELS:
        dimensions |= {f"{level}.0.attn.temperature": 3, f"{level}.0.ffn.project_out.weight": 4}
    for name, dimension in dimensions.items():
        if name not in state or state[name].ndim != dimension or 0 in state[name].shape:
            return None
    dim, in_channels = state["patch_embed.proj.weight"].shape[:2]
    hidden = [state[f"{level}.0.ffn.project_out.weight"].shape[1] for level in PUBLISHED_LEVELS]
    config = {
        "in_channels": in_channels,
        "out_channels": len(state["output.weight"]),
        "dim": dim,
        "blocks": tuple(_depth(state, level) for level in PUBLISHED_LEVELS),
        "refinement_blocks": _depth(state, "refinement"),
        "heads": tuple(len(state[f"{level}.0.attn.temperature"]) for level in PUBLISHED_LEVELS),
        "ffn_factor": _factor(hidden, [dim * 2**level for level in range(4)]),
        "bias": "latent.0.attn.qkv.bias" in state,
        "layer_norm": "with-bias" if "latent.0.norm1.body.bias" in state else "bias-free",
        "dual_pixel": "skip_conv.weight" in state,
    }
    return config, {_renamed(name): tensor for name, tensor in state.items()}


def _depth(state: Mapping[str, Tensor], part: str) -> int:
    """How many blocks, counted from 0, a part of the published model has."""
    return next(block for block in count() if f"{part}.{block}.attn.temperature" not in state)


def _factor(hidden: list[int], channels: list[int]) -> float:
    """The shortest decimal number f with int(c * f) = h for each h of `hidden` and its c of `channels`."""
    least = max(h / c for h, c in zip(hidden, channels, strict=True))
    candidates = (math.ceil(least * 10**digits) / 10**digits for digits in range(10))
    fits = (f for f in candidates if all(int(c * f) == h for h, c in zip(hidden, channels, strict=True)))
    return next(fits, least)


def _renamed(published: str) -> str:
    """Levels are counted from 0, not from 1, and a step between two levels has the number of the finer one."""
    name = re.sub(r"\.(body|proj)\.", ".", published)
    step = re.match(r"(encoder|decoder|reduce|down|up)[a-z_]*(\d[\d_]*)", name)
    return f"{step[1]}.{int(min(step[2])) - 1}{name[step.end() :]}" if step else name
