"""What every metric asks of its two images."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import DeviceError, DtypeError, ShapeError


def as_float64_pair(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check two batches of images and return them in float64, without gradient.

    Args:
        image, target: (B, C, H, W), C = 3 or 1 (luma), any floating type, on one device, B, H, W >= 1.

    Returns:
        Both as float64; on their device, or on the CPU where the device has no float64 (Apple's MPS).

    Raises:
        DtypeError: one of the two is not a floating-point tensor.
        ShapeError: not (B, 3, H, W) or (B, 1, H, W), empty, or the two shapes differ.
        DeviceError: the two lie on different devices.
    """
    for name, batch in (("image", image), ("target", target)):
        if not batch.is_floating_point():
            raise DtypeError(
                f"{name} is {batch.dtype}", "a floating-point tensor in [0, 1]", "Divide 8-bit values by 255 first."
            )
        if batch.ndim != 4 or batch.shape[1] not in (1, 3) or batch.numel() == 0:
            raise ShapeError(
                f"{name} has shape {tuple(batch.shape)}",
                "(B, 3, H, W) or (B, 1, H, W) with B, H, W >= 1",
                "Add the batch dimension to a single image with image[None].",
            )
    if image.shape != target.shape:
        raise ShapeError(f"image has shape {tuple(image.shape)} and target {tuple(target.shape)}", "equal shapes")
    if image.device != target.device:
        raise DeviceError(f"image is on {image.device} and target on {target.device}", "both on one device")
    device = torch.device("cpu") if image.device.type == "mps" else image.device
    return image.detach().to(device).double(), target.detach().to(device).double()
