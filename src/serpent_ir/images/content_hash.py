"""Which photograph it is, whatever its file is called: a hash of the decoded pixels."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from serpent_ir.errors import DtypeError, ShapeError

DIGITS = 16


def content_hash(pixels: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 over shape and samples of an image (3, H, W) uint8.

    Hashed are the bytes of "HxW:" in ASCII (height and width in decimal) and then the samples, all of red row by row,
    then green, then blue. Equal for files without loss of the same photograph, in any format, under any name; a
    photograph that was scaled, turned, cropped or compressed once more has another one.

    Raises ShapeError or DtypeError for another tensor.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ShapeError(f"pixels of shape {tuple(pixels.shape)}", "(3, H, W)")
    if pixels.dtype != torch.uint8:
        raise DtypeError(f"pixels of {pixels.dtype}", "torch.uint8")
    height, width = pixels.shape[1:]
    digest = hashlib.sha256(f"{height}x{width}:".encode())
    digest.update(pixels.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:DIGITS]
