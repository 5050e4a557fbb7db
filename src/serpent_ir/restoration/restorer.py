"""A trained model applied to images: tensors, files, folders."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, DeviceError, DtypeError, RestorationError, ShapeError, out_of_memory_as
from serpent_ir.models import ModelCard, digest_of_model, find_weights, load_with_card
from serpent_ir.ops import use_backend
from serpent_ir.restoration.device import resolve_device
from serpent_ir.restoration.pixels import to_pixels
from serpent_ir.restoration.purpose import DEFAULT_TASK, degradation_of, named_task
from serpent_ir.tasks import Degradation, enlarge

if TYPE_CHECKING:  # image files are read by pyvips, which `import serpent_ir` must not load
    from serpent_ir.images import OutputOptions, Picture
    from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
    from serpent_ir.restoration.plan import Plan


class Restorer:
    """One model on one device, ready to restore.

    task: what went wrong with the images: a registered name, the path of a task file (see `tasks.load_task`), or a
        degradation. None: what the weights file says it was trained for; "photo" when `model` names no file.
    model: a registry name with embedded weights for the task, or None for the first there are; their own name, such as
        "deblur-serpent-b"; a path to a weights file that `load_model` reads (a Path, or a string that ends in
        .safetensors, .pth or .pt); or a module that maps (B, 3, H, W) to the same shape or a multiple of H and W, which
        is moved to `device` and put into evaluation mode as it is.
    device: None takes CUDA, else MPS, else the CPU.
    backend: which implementation of the selective scan runs (see `serpent_ir.ops`); None lets it choose.

    The task decides what is done beside the model. Super-resolution: a small image comes in, is enlarged by bicubic
    interpolation and then restored, unless the model enlarges by itself. Inpainting: the image comes with a mask, and
    known pixels stay as they are. Weights that were trained on pairs of photographs keep the size, whatever their task.

    Raises UnknownNameError when there are no such weights, no such task or no such backend, DataError or RangeError for
    a task file that is not usable, CheckpointError when the weights file is not usable or was trained for another task,
    ShapeError when the model is not for so many channels, DeviceError when the device is not there.
    """

    def __init__(
        self,
        task: str | Path | Degradation | None = None,
        model: str | Path | nn.Module | None = None,
        device: str | torch.device | None = None,
        backend: str | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.backend = backend
        name, own = named_task(task)
        with use_backend(backend):  # an unknown name is refused here, not on the first image
            pass
        self.card: ModelCard | None = None
        """What the weights file says of itself; None for a module."""
        if not isinstance(model, nn.Module):
            path = find_weights(model, DEFAULT_TASK if name is None else name)
            model, self.card = load_with_card(path)
            if name is not None and self.card.task not in (None, name):
                raise CheckpointError(
                    f"{path} was trained for the task {self.card.task!r}",
                    f"weights for {name!r}",
                    f"Ask for {self.card.task!r}.",
                )
        self.task = name if name is not None or self.card is None else self.card.task
        """What the model undoes; None when nobody says so."""
        degradation = own if own is not None or self.task is None else degradation_of(self.task, self.card)
        self.channels = 3 if degradation is None else degradation.channels
        """Of an image that comes in: 3, or 4 where the last one is the mask (1 where the image is missing)."""
        check_channels(model, self.channels)
        self.upscale: int = getattr(getattr(model, "config", None), "upscale", 1)
        """How many times the model itself enlarges an image."""
        self.enlarge = 1 if degradation is None or self.upscale > 1 else degradation.enlarge
        """How many times an image is enlarged before the model sees it."""
        self.model = model.to(self.device).eval()

    def __call__(self, image: Tensor) -> Tensor:
        """Restore a tensor (C, H, W) or (B, C, H, W), floating point, nominally in [0, 1], any H, W >= 1.

        C is `channels`. Returns float32 (3, H, W) or (B, 3, H, W), clipped to [0, 1], on the device of `image`; H and W
        times `enlarge` for super-resolution, or times `upscale` for a model that enlarges images, such as SwinIR with
        an up-sampler. Raises ShapeError or DtypeError for another input, RestorationError when the result is not finite
        or memory does not suffice.
        """
        return self._restored(image, self.enlarge)

    def restore_prepared(self, image: Tensor) -> Tensor:
        """`__call__` for what `Degradation.prepared` gives, which is as large as the result: nothing is enlarged."""
        return self._restored(image, 1)

    def _restored(self, image: Tensor, factor: int) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != self.channels or image.numel() == 0:
            expected = f"({self.channels}, H, W) or (B, {self.channels}, H, W)"
            raise ShapeError(f"an image of shape {tuple(image.shape)}", expected)
        if not image.is_floating_point():
            raise DtypeError(f"an image of {image.dtype}", "floating point in [0, 1]", "Divide 8-bit values by 255.")
        size = f"{image.shape[-1]} x {image.shape[-2]} pixels"
        with out_of_memory_as(RestorationError, f"not enough memory on {self.device} for an image of {size}"):
            batch = enlarge(image.reshape(-1, *image.shape[-3:]).to(self.device, torch.float32), factor)
            with torch.inference_mode(), use_backend(self.backend):
                restored = self._filled(batch) if self.channels == 4 else self.model(batch)
            if not bool(torch.isfinite(restored).all()):
                came = "not finite either" if not bool(torch.isfinite(batch).all()) else "finite"
                raise RestorationError(f"the model's output is not finite (its input was {came})", "finite values")
            return restored.clamp(0, 1).reshape(*image.shape[:-3], *restored.shape[-3:]).to(image.device)

    def _filled(self, batch: Tensor) -> Tensor:
        """(B, 4, H, W) -> (B, 3, H, W): the model's values where the mask is 1, the image's own elsewhere."""
        missing = batch[:, 3:] > 0.5
        known = batch[:, :3].masked_fill(missing, 0)
        return torch.where(missing, self.model(torch.cat([known, missing.to(batch.dtype)], dim=1)), known)

    def restore_picture(self, picture: Picture, name: str = "") -> Picture:
        """`picture` with its pixels restored; alpha, bit depth and metadata stay. `name` is for an error.

        Where the image is enlarged, alpha is enlarged by bicubic interpolation. For inpainting, what is transparent
        (alpha below 1/2) is filled, and the result has no alpha. Raises RestorationError when there is none to say what
        is missing, and as calling does.
        """
        return self.restore_pictures([picture], [name])[0]

    def restore_pictures(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        """`restore_picture` for pictures of equal height and width, computed as one batch."""
        if self.channels == 4:
            images = [with_mask(picture, name) for picture, name in zip(pictures, names, strict=True)]
        else:
            images = [picture.pixels for picture in pictures]
        restored = self(images[0][None] if len(images) == 1 else torch.stack(images))
        return [
            replace(picture, pixels=pixels, alpha=None if self.channels == 4 else alpha_of(picture, pixels))
            for picture, pixels in zip(pictures, restored, strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        """What decides a result, as JSON can hold it: what is done with an image, and the model, by a digest.

        A module without a `config` may do more than its tensors say: nothing that is known of it holds another time.
        """
        known = getattr(self.model, "config", None) is not None
        return {
            "task": self.task,
            "channels": self.channels,
            "enlarge": self.enlarge,
            "model": digest_of_model(self.model) if known else secrets.token_hex(),
        }

    def restore_file(
        self,
        source: str | Path,
        target: str | Path,
        overwrite: bool = False,
        options: OutputOptions | None = None,
    ) -> Path:
        """Restore the image file `source` into `target`, a file name or an existing folder; returns the file's path.

        overwrite: allow `target` to be `source`. options: format, quality and bit depth of the result.
        Raises ImageReadError, ImageWriteError, RestorationError.
        """
        from serpent_ir.restoration.one import transform_file
        from serpent_ir.restoration.plan import Job, Naming, plan_file

        naming = Naming(None if options is None else options.suffix)
        path = plan_file(Path(source), Path(target), "restored", overwrite, naming)
        transform_file(Job(Path(source), path, Path(source).name), self.restore_pictures, options)
        return path

    def restore_folder(
        self,
        source: str | Path,
        target: str | Path,
        on_outcome: Callable[[FileOutcome], None] | None = None,
        options: OutputOptions | None = None,
        workers: int = 1,
        batch: int | None = None,
        again: bool = False,
    ) -> BatchSummary:
        """Restore every image below the folder `source` to the same name below `target`.

        Files that fail are left out and named in the summary with the reason; so are files that are no images by their
        suffix. Files that an earlier call restored from the same source by the same weights are skipped, unless
        `again`; so this may be interrupted and called once more.

        on_outcome: called after each file, by one thread at a time. options: format, quality and bit depth of the
        results. workers: processes, of a model on the CPU; with more than one, a program must not call this while it
        is imported (`if __name__ == "__main__"`). batch: pictures of equal size that are restored at once; None: 1 on
        a CPU, 8 else; it may change results by the rounding of sums.

        Raises DataError when there is no image, ImageWriteError when `target` could overwrite an input, DeviceError for
        workers with a model that is not on the CPU, and what `run_batch` raises.
        """
        from serpent_ir.restoration.plan import Naming, plan_folder

        plan = plan_folder(Path(source), Path(target), Naming(None if options is None else options.suffix))
        return self.restore_plan(plan, on_outcome, options, workers, batch, again)

    def restore_plan(
        self,
        plan: Plan,
        on_outcome: Callable[[FileOutcome], None] | None = None,
        options: OutputOptions | None = None,
        workers: int | None = 1,
        batch: int | None = None,
        again: bool = False,
    ) -> BatchSummary:
        """`restore_folder` for any files that were planned. workers: None takes as many as seem sensible."""
        from serpent_ir.restoration import batch as many

        if workers is not None and workers > 1 and self.device.type != "cpu":
            raise DeviceError(f"{workers} worker processes for a model on {self.device}", "1, or a model on the CPU")
        return many.run_batch(
            plan,
            self.restore_pictures,
            options,
            settings=self.settings(),
            again=again,
            workers=many.sensible_workers(plan, self.device) if workers is None else workers,
            batch=many.sensible_batch(self.device) if batch is None else batch,
            threads=many.sensible_threads(self.device),
            on_outcome=on_outcome,
        )


def restore(
    image: str | Path | np.ndarray | Tensor,
    task: str | Path | Degradation | None = None,
    model: str | Path | nn.Module | None = None,
    device: str | torch.device | None = None,
) -> Tensor:
    """Restore one image: a path, or a (3, H, W) or (H, W, 3) array or tensor. task, model, device: see `Restorer`.

    Integer images are uint8 or uint16, floating point ones in [0, 1]. For inpainting, an array has a fourth channel, 1
    (or the largest integer) where the image is missing; a file is transparent there. Returns float32 (3, H, W) in
    [0, 1], on the device of `image`, larger than the image for super-resolution. Loads the weights on every call: for
    many images make one `Restorer`.
    Raises what `Restorer` raises, ImageReadError for a file, ShapeError, DtypeError or RangeError for an array.
    """
    if not isinstance(image, str | Path):
        restorer = Restorer(task, model, device)
        return restorer(to_pixels(image, restorer.channels))
    from serpent_ir.images import read_image

    picture = read_image(image)
    return Restorer(task, model, device).restore_picture(picture, str(image)).pixels


def with_mask(picture: Picture, name: str) -> Tensor:
    """(4, H, W): the pixels, and 1 where they are transparent. Raises RestorationError when there is no alpha."""
    if picture.alpha is None:
        raise RestorationError(
            f"{name or 'the picture'} has no transparency",
            "an alpha channel, transparent where the image is to be filled",
        )
    return torch.cat([picture.pixels, (picture.alpha < 0.5).to(picture.pixels.dtype)])


def alpha_of(picture: Picture, pixels: Tensor) -> Tensor | None:
    """The alpha of `picture`, as large as `pixels`."""
    if picture.alpha is None or picture.alpha.shape[1:] == pixels.shape[1:]:
        return picture.alpha
    return F.interpolate(picture.alpha[None], pixels.shape[1:], mode="bicubic")[0].clamp(0, 1)


def check_channels(model: nn.Module, channels: int) -> None:
    """Raise ShapeError when the model says in its config that it does not map `channels` channels to colour images."""
    config = getattr(model, "config", None)
    found = getattr(config, "in_channels", channels), getattr(config, "out_channels", 3)
    if found != (channels, 3):
        what = "red, green, blue" if channels == 3 else "red, green, blue and the mask to red, green, blue"
        raise ShapeError(f"the model maps {found[0]} to {found[1]} channels", f"{channels} to 3 ({what})")
