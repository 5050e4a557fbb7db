"""U-Net: the convolutional baseline (arXiv 1505.04597, with average pooling and instance normalisation as for fastMRI).

Leaf to root: InstanceNorm -> ConvBlock, UpConvolution -> UNetConfig -> UNet. Feature maps are (B, C, H, W), as torch's
convolutions take them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import RangeError
from serpent_ir.models.padding import crop, pad_to_multiple

LEAKY_SLOPE = 0.2


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and variance 1 over its pixels, without parameters (arXiv 1607.08022).

    (B, C, H, W) to the same. Computed as a LayerNorm over the pixels, which on the CPU is faster than
    torch.nn.InstanceNorm2d and takes maps of one pixel too; they become 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[2:])


class ConvBlock(nn.Sequential):
    """Twice [3x3 convolution without bias, InstanceNorm, LeakyReLU]: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            InstanceNorm(),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            InstanceNorm(),
            nn.LeakyReLU(LEAKY_SLOPE),
        )


class UpConvolution(nn.Sequential):
    """2x2 transposed convolution of stride 2, InstanceNorm, LeakyReLU: (B, c, H, W) to (B, c/2, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2, bias=False),
            InstanceNorm(),
            nn.LeakyReLU(LEAKY_SLOPE),
        )


@dataclass(frozen=True)
class UNetConfig:
    """Everything that defines a U-Net. Level s (0, 1, ..., poolings) has `channels * 2**s` channels."""

    name: str = "unet-32"
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 32
    poolings: int = 4

    def __post_init__(self) -> None:
        for name in ("in_channels", "channels"):
            if getattr(self, name) < 1:
                raise RangeError(f"{name}={getattr(self, name)}", "1 or more")
        if not 1 <= self.out_channels <= self.in_channels:
            raise RangeError(f"out_channels={self.out_channels}", f"1 to in_channels={self.in_channels}")
        if not 0 <= self.poolings <= 10:
            raise RangeError(f"poolings={self.poolings}", "0 to 10")

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return 2**self.poolings


class UNet(nn.Module):
    """(B, in_channels, H, W) in [0, 1] to (B, out_channels, H, W), any H, W >= 1; float32 or bfloat16.

    Images are reflect-padded at the bottom and the right to a multiple of `config.size_multiple`; the result is
    cropped. The output is not clipped. InstanceNorm sees the whole (padded) image, so that an image in tiles gives
    another result; it forgets brightness and contrast, which the output gets back from the image, channel by channel:
    times its standard deviation, plus its mean. Raises `ShapeError` for another number of dimensions or channels.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * 2**level for level in range(config.poolings + 1)]
        self.down = nn.ModuleList(
            ConvBlock(before, after) for before, after in zip([config.in_channels, *widths], widths, strict=False)
        )
        self.expand = nn.ModuleList(UpConvolution(width) for width in widths[1:])
        self.up = nn.ModuleList(ConvBlock(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(config.channels, config.out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = pad_to_multiple(image, self.config.in_channels, self.config.size_multiple)
        skips: list[Tensor] = []
        for block in self.down:
            if skips:
                x = F.avg_pool2d(x, 2)
            x = block(x)
            skips.append(x)
        for level in reversed(range(self.config.poolings)):
            x = self.up[level](torch.cat([self.expand[level](x), skips[level]], dim=1))
        spread, mean = torch.std_mean(image[:, : self.config.out_channels], dim=(2, 3), correction=0, keepdim=True)
        return crop(self.head(x), image) * spread + mean
