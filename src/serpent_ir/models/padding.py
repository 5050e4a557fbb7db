"""The door of every model: checks an image batch, pads it to sizes the model can take, crops the result back."""

from __future__ import annotations

import torch
from torch import Tensor

from serpent_ir.errors import ShapeError


def pad_to_multiple(image: Tensor, channels: int, multiple: int) -> Tensor:
    """(B, channels, H, W) reflect-padded at the bottom and the right until H and W are multiples of `multiple`.

    Reflection does not repeat the border pixel; it bounces to and fro where the image is smaller than the padding, so
    that any H, W >= 1 will do. Raises `ShapeError` for another shape.
    """
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
        raise ShapeError(f"an image batch of shape {tuple(image.shape)}", f"(B, {channels}, H, W) with H, W >= 1")
    for dimension in (2, 3):
        size = image.shape[dimension]
        padding = -size % multiple
        if padding:
            index = mirrored(torch.arange(size + padding, device=image.device), size)
            image = image.index_select(dimension, index)
    return image


def mirrored(index: Tensor, size: int) -> Tensor:
    """Where the rows `index`, from 0 on, of a padded image come from in one of `size` rows."""
    bounce = max(2 * (size - 1), 1)
    index = index % bounce
    return torch.where(index < size, index, bounce - index)


def crop(output: Tensor, image: Tensor) -> Tensor:
    """The part of the output that belongs to the unpadded image."""
    return output[:, :, : image.shape[2], : image.shape[3]]
