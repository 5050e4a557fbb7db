"""Blurs with a two-dimensional kernel for each image, through the Fourier transform."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from serpent_ir.tasks.border import reflect
from serpent_ir.tasks.transposed import transposed

FAST_MULTIPLE = 32
"""Transforms are made of lengths that are a multiple of it, where they are fast; any value gives the same blur."""


class KernelBlur(ABC):
    """A blur of (B, C, H, W), float, any H, W >= 1, each image with a kernel of its own, all channels alike.

    Beyond its border the image continues by reflection without repeating the edge pixel. Kernels sum to one: a
    constant image stays as it is, up to rounding; an image of strength 0 stays bit for bit.
    """

    @abstractmethod
    def kernels(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The kernels (B, size, size), float64, `size` odd; and which images are blurred at all, (B,) bool.

        Both on `options.drawing_device`.
        """

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        kernels, blurred = self.kernels(image, generator)
        return torch.where(blurred.to(image.device).view(-1, 1, 1, 1), convolve(image, kernels), image)

    def adjoint(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The transposed linear map A', with <A x, y> = <x, A' y>, for a generator in the same state."""
        kernels, blurred = self.kernels(image, generator)
        turned = transposed(lambda x: convolve(x, kernels), image, image.shape)
        return torch.where(blurred.to(image.device).view(-1, 1, 1, 1), turned, image)


def convolve(image: Tensor, kernels: Tensor) -> Tensor:
    """Each image of (B, C, H, W), continued by reflection, convolved with its kernel of (B, size, size), size odd.

    The kernels may be of another type and on another device; the result is as `image`.
    """
    kernels = kernels.to(image.device, image.dtype)
    height, width = image.shape[2:]
    radius = kernels.shape[1] // 2
    padded = reflect(image, (radius, radius), (radius, radius))
    size = [length + -length % FAST_MULTIPLE for length in padded.shape[2:]]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernels, s=size).unsqueeze(1)
    first = 2 * radius
    return torch.fft.irfft2(spectrum, s=size)[:, :, first : first + height, first : first + width].contiguous()
