"""A trained model applied to images: tensors, files, folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, DtypeError, RestorationError, ShapeError, out_of_memory_as
from serpent_ir.models import ModelCard, embedded_weights, is_published, load_with_card
from serpent_ir.ops import use_backend
from serpent_ir.restoration.device import resolve_device
from serpent_ir.restoration.pixels import to_pixels

if TYPE_CHECKING:  # image files are read by pyvips, which `import serpent_ir` must not load
    from serpent_ir.images import FileOutcome, FolderSummary, Picture


class Restorer:
    """One model on one device, ready to restore.

    task: what went wrong with the images; chooses the embedded weights.
    model: a registry name with embedded weights for `task`; a path to a weights file that `load_model` reads (a Path,
        or a string that ends in .safetensors, .pth or .pt); or a module that maps (B, 3, H, W) to the same shape or a
        multiple of H and W, which is moved to `device` and put into evaluation mode as it is.
    device: None takes CUDA, else MPS, else the CPU.
    backend: which implementation of the selective scan runs (see `serpent_ir.ops`); None lets it choose.

    Raises UnknownNameError when there are no such weights or no such backend, CheckpointError when the file is not
    usable or was trained for another task, ShapeError when the model is not for three channels, DeviceError when the
    device is not there.
    """

    def __init__(
        self,
        task: str = "deblur",
        model: str | Path | nn.Module = "serpent-b",
        device: str | torch.device | None = None,
        backend: str | None = None,
    ) -> None:
        self.task = task
        self.device = resolve_device(device)
        self.backend = backend
        with use_backend(backend):  # an unknown name is refused here, not on the first image
            pass
        self.card: ModelCard | None = None
        """What the weights file says of itself; None for a module."""
        if not isinstance(model, nn.Module):
            path = find_weights(task, model)
            model, self.card = load_with_card(path)
            if self.card.task not in (None, task):
                raise CheckpointError(
                    f"{path} was trained for the task {self.card.task!r}",
                    f"weights for {task!r}",
                    f"Ask for {self.card.task!r}.",
                )
        check_channels(model)
        self.model = model.to(self.device).eval()

    def __call__(self, image: Tensor) -> Tensor:
        """Restore a tensor (3, H, W) or (B, 3, H, W), floating point, nominally in [0, 1], any H, W >= 1.

        Returns float32 of the same shape, clipped to [0, 1], on the device of `image`; H and W times `upscale` for a
        model that enlarges images, such as SwinIR with an up-sampler.
        Raises ShapeError or DtypeError for another input, RestorationError when the result is not finite or memory
        does not suffice.
        """
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
            raise ShapeError(f"an image of shape {tuple(image.shape)}", "(3, H, W) or (B, 3, H, W)")
        if not image.is_floating_point():
            raise DtypeError(f"an image of {image.dtype}", "floating point in [0, 1]", "Divide 8-bit values by 255.")
        size = f"{image.shape[-1]} x {image.shape[-2]} pixels"
        with out_of_memory_as(RestorationError, f"not enough memory on {self.device} for an image of {size}"):
            return self.restore_tensor(image)

    def restore_tensor(self, image: Tensor) -> Tensor:
        """What calling does, after the checks of `image`."""
        batch = image.reshape(-1, *image.shape[-3:]).to(self.device, torch.float32)
        with torch.inference_mode(), use_backend(self.backend):
            restored = self.model(batch)
        if not bool(torch.isfinite(restored).all()):
            came = "not finite either" if not bool(torch.isfinite(batch).all()) else "finite"
            raise RestorationError(f"the model's output is not finite (its input was {came})", "finite values")
        return restored.clamp(0, 1).reshape(*image.shape[:-2], *restored.shape[-2:]).to(image.device)

    def restore_picture(self, picture: Picture, name: str = "") -> Picture:
        """`picture` with its pixels restored; alpha, bit depth and metadata stay. `name` is not used.

        Where the model enlarges the image, alpha is enlarged by bicubic interpolation.
        """
        pixels, alpha = self(picture.pixels), picture.alpha
        if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
            alpha = F.interpolate(alpha[None], pixels.shape[1:], mode="bicubic")[0].clamp(0, 1)
        return replace(picture, pixels=pixels, alpha=alpha)

    def restore_file(self, source: str | Path, target: str | Path, overwrite: bool = False) -> Path:
        """Restore the image file `source` into `target`, a file name or an existing folder; returns the file's path.

        overwrite: allow `target` to be `source`. Raises ImageReadError, ImageWriteError, RestorationError.
        """
        from serpent_ir.images import plan_file, transform_file

        path = plan_file(Path(source), Path(target), "restored", overwrite)
        transform_file(Path(source), path, self.restore_picture)
        return path

    def restore_folder(
        self,
        source: str | Path,
        target: str | Path,
        on_outcome: Callable[[FileOutcome], None] | None = None,
    ) -> FolderSummary:
        """Restore every image below the folder `source` to the same name below `target`.

        Files that fail are left out and named in the summary with the reason; so are files that are no images by their
        suffix. on_outcome: called after each file.
        Raises DataError when there is no image, ImageWriteError when `target` could overwrite an input.
        """
        from serpent_ir.images import plan_folder, transform_folder

        return transform_folder(plan_folder(Path(source), Path(target)), self.restore_picture, on_outcome)


def restore(
    image: str | Path | np.ndarray | Tensor,
    task: str = "deblur",
    model: str | Path | nn.Module = "serpent-b",
    device: str | torch.device | None = None,
) -> Tensor:
    """Restore one image: a path, or a (3, H, W) or (H, W, 3) array or tensor.

    Integer images are uint8 or uint16, floating point ones in [0, 1]. Returns float32 (3, H, W) in [0, 1], on the
    device of `image`. Loads the weights on every call: for many images make one `Restorer`.
    Raises what `Restorer` raises, ImageReadError for a file, ShapeError, DtypeError or RangeError for an array.
    """
    if isinstance(image, str | Path):
        from serpent_ir.images import read_image

        pixels = read_image(image).pixels
    else:
        pixels = to_pixels(image)
    return Restorer(task, model, device)(pixels)


def find_weights(task: str, model: str | Path) -> Path:
    """The weights file that `model` stands for; see `Restorer`."""
    if isinstance(model, str) and not (model.endswith(".safetensors") or is_published(model)):
        return embedded_weights(task, model)
    return Path(model)


def check_channels(model: nn.Module) -> None:
    """Raise ShapeError when the model says in its config that it does not map colour images to colour images."""
    config = getattr(model, "config", None)
    channels = getattr(config, "in_channels", 3), getattr(config, "out_channels", 3)
    if channels != (3, 3):
        raise ShapeError(f"the model maps {channels[0]} to {channels[1]} channels", "3 to 3 (red, green, blue)")
