"""SwinIR: image restoration with attention in shifted windows (arXiv 2108.10257; its blocks: Swin, arXiv 2103.14030).

Leaf to root: WindowAttention -> SwinBlock -> ResidualGroup -> SwinIRConfig -> SwinIR; at the end what the weights that
its authors publish tell. Feature maps are channels-last, (B, H, W, C), inside a residual group; images are (B, C, H, W)
at the door. The parameters bear the names that they have in the authors' files.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, RangeError
from serpent_ir.models.padding import pad_to_multiple

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K
RECONSTRUCTION_CHANNELS = 64
SEPARATION = -100.0  # added to the attention between pixels that only the cyclic shift made neighbours


class WindowAttention(nn.Module):
    """Self-attention among the pixels of each window, shifted by `shift` pixels: (B, H, W, c) to the same.

    H and W are multiples of `window`. softmax(q k' / sqrt(c / heads) + bias) v per head, where the bias is learned for
    each relative position; Swin, section 3.2. The shift is cyclic, so the last row and the last column of windows hold
    pixels from both ends of the image, and these do not see each other. Those windows are all alike: there are four
    cases of windows at any image size, and a bias for each.
    """

    position: Tensor
    separation: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

        pixel = torch.arange(window * window)
        row, column = pixel // window, pixel % window
        row_step, column_step = row[:, None] - row + window - 1, column[:, None] - column + window - 1
        self.register_buffer("position", row_step * (2 * window - 1) + column_step, persistent=False)
        if shift:
            wrapped = torch.stack([row >= window - shift, column >= window - shift])
            apart = wrapped[:, :, None] != wrapped[:, None, :]
            nowhere = torch.zeros_like(apart[0])
            cases = torch.stack([nowhere, apart[1], apart[0], apart[0] | apart[1]]).unflatten(0, (2, 2))
            self.register_buffer("separation", SEPARATION * cases, persistent=False)  # [last row?, last column?]

    def forward(self, x: Tensor) -> Tensor:
        bias = self.relative_position_bias_table[self.position].permute(2, 0, 1)
        if not self.shift:
            return self._attend(x, bias)
        x = x.roll((-self.shift, -self.shift), (1, 2))
        bands = []
        for in_last_row, band in _without_last(x, 1, self.window):
            parts = [
                self._attend(part, bias + self.separation[in_last_row, in_last_column])
                for in_last_column, part in _without_last(band, 2, self.window)
            ]
            bands.append(torch.cat(parts, dim=2))
        return torch.cat(bands, dim=1).roll((self.shift, self.shift), (1, 2))

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attention in the windows of (B, H, W, c) with one bias (heads, window^2, window^2) for all of them."""
        batch, height, width, channels = x.shape
        window = self.window
        rows, columns = height // window, width // window
        x = x.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
        x = x.reshape(batch * rows * columns, window * window, channels)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype).contiguous())
        y = self.proj(y.transpose(1, 2).flatten(2))
        y = y.view(batch, rows, columns, window, window, channels).transpose(2, 3)
        return y.reshape(batch, height, width, channels)


def _without_last(x: Tensor, dimension: int, window: int) -> list[tuple[int, Tensor]]:
    """(0, all windows but the last along a dimension), where there are any, and (1, the last one)."""
    size = x.shape[dimension]
    last = (1, x.narrow(dimension, size - window, window))
    return [last] if size == window else [(0, x.narrow(dimension, 0, size - window)), last]


class SwinBlock(nn.Module):
    """x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)): (B, H, W, c) to the same. Paper, section 3.2."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(channels, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def residual_convolution(channels: int, kind: str) -> nn.Module:
    """What closes a residual connection, (B, c, H, W) to the same: a 3x3 convolution, or three around c/4 channels."""
    if kind == "1conv":
        return nn.Conv2d(channels, channels, 3, padding=1)
    narrow = channels // 4
    return nn.Sequential(
        nn.Conv2d(channels, narrow, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, channels, 3, padding=1),
    )


class ResidualGroup(nn.Module):
    """x + convolution(blocks(x)), every second block with shifted windows: (B, H, W, c) to the same.

    Paper, section 3.2: "residual Swin Transformer block".
    """

    def __init__(self, channels: int, depth: int, heads: int, window: int, hidden: int, kind: str) -> None:
        super().__init__()
        blocks = (SwinBlock(channels, heads, window, window // 2 if i % 2 else 0, hidden) for i in range(depth))
        self.residual_group = nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))
        self.conv = residual_convolution(channels, kind)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.residual_group(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


_UPSCALES = {
    "": (1,),
    "pixelshuffle": (1, 2, 3, 4, 8),
    "pixelshuffledirect": (1, 2, 3, 4, 8),
    "nearest+conv": (2, 4),
}


@dataclass(frozen=True)
class SwinIRConfig:
    """Everything that defines a SwinIR: group i has `depths[i]` blocks with `heads[i]` heads each.

    upsampler: '' restores at the same size and adds the input; 'pixelshuffle' (classical super-resolution),
    'pixelshuffledirect' (lightweight) and 'nearest+conv' (real photographs) enlarge `upscale` times. image_range: what
    white, 1.0 at the door, is inside. Three input channels are shifted by `RGB_MEAN`.
    """

    name: str = "swinir-b"
    in_channels: int = 3
    out_channels: int = 3
    embed_channels: int = 96
    depths: tuple[int, ...] = (6, 6, 6, 6)
    heads: tuple[int, ...] = (6, 6, 6, 6)
    window_size: int = 8
    mlp_ratio: float = 4.0
    residual_connection: str = "1conv"  # or "3conv"
    upsampler: str = ""
    upscale: int = 1
    image_range: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))  # a JSON file has lists
        object.__setattr__(self, "heads", tuple(self.heads))
        if not self.depths or len(self.depths) != len(self.heads):
            raise RangeError(
                f"depths={self.depths}, heads={self.heads}", "one or more groups, a number for each in both"
            )
        if not all(0 <= depth <= 256 for depth in self.depths):
            raise RangeError(f"depths={self.depths}", "0 to 256 each")
        if not all(heads >= 1 and self.embed_channels % heads == 0 for heads in self.heads):
            raise RangeError(f"heads={self.heads}", f"divisors of embed_channels={self.embed_channels}")
        if self.residual_connection not in ("1conv", "3conv"):
            raise RangeError(f"residual_connection={self.residual_connection!r}", "'1conv' or '3conv'")
        if self.embed_channels < 4:
            raise RangeError(f"embed_channels={self.embed_channels}", "4 or more")
        if not 1 <= self.out_channels <= self.in_channels:
            raise RangeError(f"out_channels={self.out_channels}", f"1 to in_channels={self.in_channels}")
        if not 1 <= self.window_size <= 32:
            raise RangeError(f"window_size={self.window_size}", "1 to 32")
        if not 1 / self.embed_channels <= self.mlp_ratio <= 64:
            raise RangeError(f"mlp_ratio={self.mlp_ratio}", "at least one hidden channel, at most 64 times the width")
        if self.upsampler not in _UPSCALES:
            raise RangeError(f"upsampler={self.upsampler!r}", f"one of {', '.join(map(repr, _UPSCALES))}")
        if self.upscale not in _UPSCALES[self.upsampler]:
            choices = ", ".join(map(str, _UPSCALES[self.upsampler]))
            raise RangeError(f"upscale={self.upscale} with upsampler={self.upsampler!r}", f"one of {choices}")
        if not 0 < self.image_range < math.inf:
            raise RangeError(f"image_range={self.image_range}", "a positive number")

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return self.window_size


class SwinIR(nn.Module):
    """(B, in_channels, H, W) in [0, 1] to (B, out_channels, upscale H, upscale W), any H, W >= 1; float32 or bfloat16.

    Images are reflect-padded at the bottom and the right to a multiple of `config.size_multiple`; the result is
    cropped. The output is not clipped. Raises `ShapeError` for another number of dimensions or channels.
    """

    mean: Tensor

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        self.config = config
        width, window, kind = config.embed_channels, config.window_size, config.residual_connection
        hidden = round(config.mlp_ratio * width)
        mean = RGB_MEAN if config.in_channels == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.patch_embed = nn.Sequential(OrderedDict(norm=nn.LayerNorm(width)))
        self.layers = nn.Sequential(
            *(
                ResidualGroup(width, depth, heads, window, hidden, kind)
                for depth, heads in zip(config.depths, config.heads, strict=True)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = residual_convolution(width, kind)
        self._make_reconstruction()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _make_reconstruction(self) -> None:
        """The layers from features to image; paper, section 3.1 and section 4.1 for each kind of super-resolution."""
        config, width = self.config, self.config.embed_channels
        if config.upsampler == "pixelshuffledirect":
            self.upsample = _enlarging(width, config.out_channels, config.upscale)
            return
        if config.upsampler:
            width = RECONSTRUCTION_CHANNELS
            before = nn.Conv2d(config.embed_channels, width, 3, padding=1)
            self.conv_before_upsample = nn.Sequential(before, nn.LeakyReLU(0.01))
        if config.upsampler == "pixelshuffle":
            factors = [3] if config.upscale == 3 else [2] * (config.upscale.bit_length() - 1)
            self.upsample = nn.Sequential(*(layer for factor in factors for layer in _enlarging(width, width, factor)))
        if config.upsampler == "nearest+conv":
            self.conv_up1 = nn.Conv2d(width, width, 3, padding=1)
            if config.upscale == 4:
                self.conv_up2 = nn.Conv2d(width, width, 3, padding=1)
            self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        config = self.config
        height, width = (config.upscale * size for size in image.shape[-2:])
        x = (pad_to_multiple(image, config.in_channels, config.size_multiple) - self.mean) * config.image_range
        shallow = self.conv_first(x)
        deep = self.norm(self.layers(self.patch_embed(shallow.permute(0, 2, 3, 1))))
        output = self._reconstruct(shallow + self.conv_after_body(deep.permute(0, 3, 1, 2)))
        if not config.upsampler:
            output = output + x[:, : config.out_channels]
        output = output / config.image_range + self.mean[:, : config.out_channels]
        return output[:, :, :height, :width]

    def _reconstruct(self, x: Tensor) -> Tensor:
        upsampler = self.config.upsampler
        if upsampler == "pixelshuffledirect":
            return self.upsample(x)
        if upsampler:
            x = self.conv_before_upsample(x)
        if upsampler == "pixelshuffle":
            x = self.upsample(x)
        if upsampler == "nearest+conv":
            for convolution in (self.conv_up1, self.conv_up2) if self.config.upscale == 4 else (self.conv_up1,):
                x = F.leaky_relu(convolution(F.interpolate(x, scale_factor=2.0)), 0.2)
            x = F.leaky_relu(self.conv_hr(x), 0.2)
        return self.conv_last(x)


def _enlarging(channels_in: int, channels_out: int, factor: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out * factor**2, 3, padding=1),
        nn.PixelShuffle(factor),
    )


_BLOCK = re.compile(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.attn\.relative_position_bias_table")
_BUFFERS = ("relative_position_index", "attn_mask")


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Configuration and parameters of the weights that the authors of SwinIR publish; None when it is another model.

    Names and shapes tell everything but `image_range`: it is 255 for window 7 (JPEG artefacts) and 1 for all others, as
    in all published files. The fields fit `SwinIRConfig`; the tensors fit its SwinIR when they are of a kind published.

    Raises:
        CheckpointError: a SwinIR that lacks a needed tensor, or has an absolute position embedding.
    """
    blocks = [(int(match[1]), match[0]) for match in map(_BLOCK.fullmatch, state) if match]
    if not blocks or "conv_first.weight" not in state:
        return None
    if "absolute_pos_embed" in state:
        raise CheckpointError("SwinIR weights with an absolute position embedding", "weights without, as published")
    tables = dict(blocks)  # of one block in each group
    embed_channels, in_channels = _shape(state, "conv_first.weight", 4)[:2]
    positions = _shape(state, blocks[0][1], 2)[0]
    hidden = _shape(state, blocks[0][1].replace("attn.relative_position_bias_table", "mlp.fc1.weight"), 2)[0]
    window_size = (math.isqrt(positions) + 1) // 2
    upsampler, upscale = _upsampling(state, in_channels)
    config = {
        "in_channels": in_channels,
        "out_channels": in_channels if "conv_last.weight" not in state else _shape(state, "conv_last.weight", 4)[0],
        "embed_channels": embed_channels,
        "depths": tuple(sum(group == of_block for of_block, _ in blocks) for group in sorted(tables)),
        "heads": tuple(_shape(state, tables[group], 2)[1] for group in sorted(tables)),
        "window_size": window_size,
        "mlp_ratio": hidden / embed_channels,
        "residual_connection": "1conv" if "conv_after_body.weight" in state else "3conv",
        "upsampler": upsampler,
        "upscale": upscale,
        "image_range": 255.0 if window_size == 7 else 1.0,
    }
    return config, {name: tensor for name, tensor in state.items() if name.rsplit(".", 1)[-1] not in _BUFFERS}


def _upsampling(state: Mapping[str, Tensor], in_channels: int) -> tuple[str, int]:
    """`upsampler` and `upscale` of published weights."""
    if "conv_up1.weight" in state:
        return "nearest+conv", 4 if "conv_up2.weight" in state else 2
    convolutions = [name for name in state if re.fullmatch(r"upsample\.\d+\.weight", name)]
    shapes = [_shape(state, name, 4) for name in convolutions]
    if "conv_before_upsample.0.weight" in state:
        return "pixelshuffle", math.prod(math.isqrt(shape[0] // shape[1]) for shape in shapes)
    if shapes:
        return "pixelshuffledirect", math.isqrt(shapes[0][0] // in_channels)
    return "", 1


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    if name not in state or state[name].ndim != dimensions or 0 in state[name].shape:
        raise CheckpointError(f"SwinIR weights without {name}", f"a tensor of {dimensions} dimensions of that name")
    return state[name].shape
