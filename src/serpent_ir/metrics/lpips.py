"""Learned perceptual image patch similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, ShapeError
from serpent_ir.metrics.pairs import as_float64_pair

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What images in [-1, 1] are shifted and divided by, channel for channel: about AlexNet's own normalisation."""

TINY = 1e-10
SMALLEST_SIDE = 31
"""Below, nothing is left after the second pooling."""

CONVOLUTIONS = {  # name in AlexNet's file: (channels in, channels out, kernel, stride, padding)
    "features.0": (3, 64, 11, 4, 2),
    "features.3": (64, 192, 5, 1, 2),
    "features.6": (192, 384, 3, 1, 1),
    "features.8": (384, 256, 3, 1, 1),
    "features.10": (256, 256, 3, 1, 1),
}
POOLED = ("features.3", "features.6")
"""Convolutions that are preceded by maximum pooling, 3 x 3 with stride 2."""


class Lpips(nn.Module):
    """LPIPS version 0.1 with AlexNet (Zhang, Isola, Efros, Shechtman, Wang 2018, section 3): 0 for equal images.

    The distance between two images' features after each of AlexNet's five convolutions with ReLU: features are divided
    by their length over channels at each position, their squared difference is weighted by the head of that layer,
    averaged over positions, and added up over layers. float32.

    alexnet: tensors under the names in torchvision's file; those of the classifier are not used. heads: one vector of
    weights for the channels of each layer. `load_lpips` reads both from files.

    Raises CheckpointError when a tensor is missing or of another shape.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, alexnet: Mapping[str, Tensor], heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        for name, (channels_in, channels_out, kernel, stride, padding) in CONVOLUTIONS.items():
            convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
            tensors = {part: alexnet.get(f"{name}.{part}") for part in ("weight", "bias")}
            for part, expected in convolution.state_dict().items():
                tensor = tensors[part]
                if tensor is None or tensor.shape != expected.shape:
                    came = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
                    raise CheckpointError(
                        f"AlexNet's tensor {name}.{part} is {came}", f"a tensor of shape {tuple(expected.shape)}"
                    )
            convolution.load_state_dict(tensors)
            self.convolutions[name.replace(".", "_")] = convolution
        widths = [channels_out for _, channels_out, *_ in CONVOLUTIONS.values()]
        if [tuple(head.shape) for head in heads] != [(width,) for width in widths]:
            raise CheckpointError(f"heads of shapes {[tuple(head.shape) for head in heads]}", f"vectors of {widths}")
        self.heads = nn.ParameterList([nn.Parameter(head.float()) for head in heads])
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """(B, 3, H, W) twice, in [0, 1], any floating type, H and W at least 31: (B,) float64, small for alike images.

        The images are moved to this module's device. Raises DtypeError, ShapeError, DeviceError as the other metrics.
        """
        as_float64_pair(image, target)
        if image.shape[1] != 3 or min(image.shape[-2:]) < SMALLEST_SIDE:
            came = f"images of {image.shape[1]} channels, {image.shape[-2]} x {image.shape[-1]}"
            raise ShapeError(came, f"3 channels, at least {SMALLEST_SIDE} x {SMALLEST_SIDE} for LPIPS")
        with torch.inference_mode():
            pairs = zip(self.features(image), self.features(target), strict=True)
            distance = torch.zeros(len(image), device=self.shift.device)
            for head, (ours, theirs) in zip(self.heads, pairs, strict=True):
                distance += ((ours - theirs).square() * head.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
        return distance.double().cpu()

    def features(self, image: Tensor) -> list[Tensor]:
        """After each convolution: (B, channels, h, w), of length 1 (or 0) over channels."""
        found = []
        x = (2 * image.detach().to(self.shift.device, torch.float32) - 1 - self.shift) / self.scale
        for name in CONVOLUTIONS:
            if name in POOLED:
                x = nn.functional.max_pool2d(x, 3, 2)
            x = self.convolutions[name.replace(".", "_")](x).relu()
            found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + TINY))
        return found
