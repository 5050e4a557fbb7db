"""A trained model applied to images: tensors, files, folders."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serpent_ir.errors import (
    CheckpointError,
    DtypeError,
    RangeError,
    RestorationError,
    ShapeError,
    UnknownNameError,
    out_of_memory_as,
)
from serpent_ir.models import ModelCard, find_weights, load_with_card
from serpent_ir.models.out_of_core import ImageRows
from serpent_ir.ops import use_backend
from serpent_ir.restoration.device import resolve_device
from serpent_ir.restoration.ensemble import ensembled
from serpent_ir.restoration.evaluation import Evaluation, Planner, run_in_parts
from serpent_ir.restoration.pixels import missing_part, to_pixels
from serpent_ir.restoration.purpose import DEFAULT_TASK, degradation_of, named_task
from serpent_ir.restoration.rows import TensorRows
from serpent_ir.restoration.strength import blended, check_strength
from serpent_ir.tasks import Degradation, enlarge

if TYPE_CHECKING:  # image files are read by pyvips, which `import serpent_ir` must not load
    from serpent_ir.images import FileOutcome, FolderSummary, Picture

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EXPLODED = 4.0
"""How far outside of [0, 1] numbers of a lower precision may lie; those of a model that works are within 0.5 or so."""


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
    ensemble: give the mean over the eight ways to turn and flip the image, see `ensemble.ensembled`: eight times the
        time, a little nearer to the truth.
    strength: how far to go from the input, 0, to the restored image, 1; in between both are mixed in linear light, see
        `strength.blended`. With super-resolution the input is the one enlarged by bicubic interpolation.
    precision: float32, or bfloat16 or float16 (torch's autocast). Parts of an image of which a model makes numbers that
        are not finite, or lie more than 4 outside [0, 1], are computed again in float32, with a warning.
    memory, way, tile, overlap: how images go through the model that are too large for one piece, see
        `evaluation.Planner`. By default as memory allows: a Serpent on the CPU in bands, to the same result, other
        models in overlapping tiles.

    The task decides what is done beside the model. Super-resolution: a small image comes in, is enlarged by bicubic
    interpolation and then restored, unless the model enlarges by itself. Inpainting: the image comes with a mask, and
    known pixels stay as they are. Weights that were trained on pairs of photographs keep the size, whatever their task.

    Raises UnknownNameError when there are no such weights, no such task or no such backend, DataError or RangeError for
    a task file that is not usable, CheckpointError when the weights file is not usable or was trained for another task,
    ShapeError when the model is not for so many channels, DeviceError when the device is not there, RangeError for a
    strength outside [0, 1], or below 1 for inpainting, which has no input to mix with what it fills.
    """

    def __init__(
        self,
        task: str | Path | Degradation | None = None,
        model: str | Path | nn.Module | None = None,
        device: str | torch.device | None = None,
        backend: str | None = None,
        *,
        ensemble: bool = False,
        strength: float = 1.0,
        precision: str = "float32",
        memory: int | None = None,
        way: str | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> None:
        check_strength(strength)
        self.ensemble, self.strength = ensemble, strength
        self.device = resolve_device(device)
        self.backend = backend
        if precision not in PRECISIONS:
            raise UnknownNameError(f"unknown precision {precision!r}", f"one of {', '.join(PRECISIONS)}")
        self.precision = precision
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
        self.degradation: Degradation | None = degradation
        """What happened to the images, as far as that is known: what `check_fidelity` does to a result again."""
        self.channels = 3 if degradation is None else degradation.channels
        """Of an image that comes in: 3, or 4 where the last one is the mask (1 where the image is missing)."""
        if self.channels == 4 and strength < 1:
            came = f"strength {strength} for task {self.task!r}"
            raise RangeError(came, "1: where the image is missing, there is no input to mix with what is filled")
        check_channels(model, self.channels)
        self.upscale: int = getattr(getattr(model, "config", None), "upscale", 1)
        """How many times the model itself enlarges an image."""
        self.enlarge = 1 if degradation is None or self.upscale > 1 else degradation.enlarge
        """How many times an image is enlarged before the model sees it."""
        self.model = model.to(self.device).eval()
        with use_backend(backend):
            self.planner = Planner(self.model, self.device, self.channels, memory, way, tile, overlap)

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
            batch = enlarge(image.reshape(-1, *image.shape[-3:]).float(), factor)
            evaluation = self.planner.choose(*batch.shape[:1], *batch.shape[2:])
            if evaluation.way == "whole":
                batch = batch.to(self.device)
            evaluate = partial(self._evaluated, evaluation=evaluation)
            output = ensembled(evaluate, batch) if self.ensemble else evaluate(batch)
            restored = self.finished(output, enlarge(batch, output.shape[-1] // batch.shape[-1]))
            return restored.reshape(*image.shape[:-3], *restored.shape[-3:]).to(image.device)

    def _evaluated(self, batch: Tensor, evaluation: Evaluation) -> Tensor:
        """What the model makes of (B, C, H, W), not clipped, in one piece or in parts."""
        seen = self.seen(batch)
        if evaluation.way == "whole":
            return self._run(seen)
        output = batch.new_empty(len(batch), 3, self.upscale * batch.shape[2], self.upscale * batch.shape[3])
        for image, result in zip(seen, output, strict=True):

            def write(first: int, rows: Tensor, result: Tensor = result) -> None:
                result[:, first : first + rows.shape[1]] = rows

            self.run_in_parts(TensorRows(image), write, evaluation)
        return output

    def run_in_parts(
        self,
        image: ImageRows,
        write: Callable[[int, Tensor], None],
        evaluation: Evaluation,
        folder: Path | None = None,
        begin: int = 0,
        on_stage: Callable[[int, int], None] | None = None,
    ) -> None:
        """An image as the model sees it, read row by row; see `evaluation.run_in_parts`."""
        with use_backend(self.backend):
            run_in_parts(self.model, self._run, image, write, evaluation, folder, begin, on_stage)

    def seen(self, batch: Tensor) -> Tensor:
        """What the model sees of (B, C, H, W): with a mask, nothing where the image is missing."""
        if self.channels == 3:
            return batch
        missing = batch[:, 3:] > 0.5
        return torch.cat([batch[:, :3].masked_fill(missing, 0), missing.to(batch.dtype)], dim=1)

    def _run(self, batch: Tensor) -> Tensor:
        """The model on (B, C, H, W), float32; once more in float32 where a lower precision did not do."""
        with torch.inference_mode(), use_backend(self.backend):
            if self.precision != "float32":
                with torch.autocast(self.device.type, PRECISIONS[self.precision]):
                    output = self.model(batch.to(self.device)).float()
                if bool(((output >= -EXPLODED) & (output <= 1 + EXPLODED)).all()):  # NaN is neither
                    return output.to(batch.device)
                warnings.warn(
                    f"{batch.shape[-1]} x {batch.shape[-2]} pixels were computed again in float32: in {self.precision}"
                    " the output was not finite or exploded",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return self.model(batch.to(self.device)).to(batch.device)

    def finished(self, output: Tensor, before: Tensor) -> Tensor:
        """The model's output (B, 3, H, W) clipped to [0, 1], mixed with the input as `strength` says.

        before: (B, C, H, W), the input at the size of the output; with a mask, its known pixels stay as they were.
        """
        if not bool(torch.isfinite(output).all()):
            came = "not finite either" if not bool(torch.isfinite(before).all()) else "finite"
            raise RestorationError(f"the model's output is not finite (its input was {came})", "finite values")
        if self.channels == 4:
            output = torch.where(before[:, 3:] > 0.5, output, before[:, :3])
        restored = output.clamp(0, 1)
        return restored if self.strength == 1 else blended(before, restored, self.strength).clamp(0, 1)

    def restore_picture(self, picture: Picture, name: str = "") -> Picture:
        """`picture` with its pixels restored; alpha, bit depth and metadata stay. `name` is for an error.

        Where the image is enlarged, alpha is enlarged by bicubic interpolation. For inpainting, what is transparent
        (alpha below 1/2) is filled, and the result has no alpha. Raises RestorationError when there is none to say what
        is missing, and as calling does. What lies outside [0, 1], colours beyond sRGB and highlights, passes by the
        model: it is taken off, and added to the result.
        """
        self.check_picture(picture, name or "the picture")
        inside = picture.pixels.clamp(0, 1)
        if self.channels == 4 and picture.alpha is not None:
            return replace(picture, pixels=self(torch.cat([inside, missing_part(picture.alpha)])), alpha=None)
        pixels, alpha = self(inside), picture.alpha
        if not torch.equal(inside, picture.pixels):
            excess = (picture.pixels - inside)[None]
            pixels = pixels + enlarge(excess, pixels.shape[1] // excess.shape[2])[0]
        if alpha is not None and alpha.shape[1:] != pixels.shape[1:]:
            alpha = F.interpolate(alpha[None], pixels.shape[1:], mode="bicubic")[0].clamp(0, 1)
        return replace(picture, pixels=pixels, alpha=alpha)

    def check_picture(self, picture: Picture, name: str) -> None:
        """Raise RestorationError when a picture, called `name`, does not say what of it is missing, and must."""
        if self.channels == 4 and picture.alpha is None:
            raise RestorationError(
                f"{name} has no transparency", "an alpha channel, transparent where the image is to be filled"
            )

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


def check_channels(model: nn.Module, channels: int) -> None:
    """Raise ShapeError when the model says in its config that it does not map `channels` channels to colour images."""
    config = getattr(model, "config", None)
    found = getattr(config, "in_channels", channels), getattr(config, "out_channels", 3)
    if found != (channels, 3):
        what = "red, green, blue" if channels == 3 else "red, green, blue and the mask to red, green, blue"
        raise ShapeError(f"the model maps {found[0]} to {found[1]} channels", f"{channels} to 3 ({what})")
