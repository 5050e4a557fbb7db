"""A trained model applied to images: tensors, files, folders."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from serpent_ir.errors import (
    CheckpointError,
    DeviceError,
    DtypeError,
    RangeError,
    RestorationError,
    ShapeError,
    UnknownNameError,
    out_of_memory_as,
)
from serpent_ir.models import ModelCard, digest_of_model, find_weights, load_with_card
from serpent_ir.models.out_of_core import ImageRows
from serpent_ir.ops import use_backend
from serpent_ir.restoration.device import resolve_device
from serpent_ir.restoration.ensemble import ensembled
from serpent_ir.restoration.evaluation import Evaluation, Planner, run_in_parts
from serpent_ir.restoration.pixels import missing_part, planes_of, to_pixels
from serpent_ir.restoration.purpose import DEFAULT_TASK, degradation_of, named_task
from serpent_ir.restoration.rows import TensorRows
from serpent_ir.restoration.seams import measure_seams
from serpent_ir.restoration.strength import blended, check_strength
from serpent_ir.tasks import Degradation, enlarge

if TYPE_CHECKING:  # image files are read by pyvips, which `import serpent_ir` must not load
    from serpent_ir.images import OutputOptions, Picture
    from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
    from serpent_ir.restoration.plan import Plan

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
EXPLODED = 4.0
"""How far outside of [0, 1] numbers of a lower precision may lie; those of a model that works are within 0.5 or so."""

BYTES_OF_PICTURE = 32
"""For each pixel: four planes of float32, and samples and the file's bytes beside them."""


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
        are not finite, or lie more than 4 outside [0, 1], are computed again in float32: a note of a
        picture says so, and for tensors a RuntimeWarning.
    memory, way, tile, overlap: how images go through the model that are too large for one piece, see
        `evaluation.Planner`. By default as memory allows: a Serpent on the CPU in bands, to the same result, other
        models in overlapping tiles.
    report: say in the notes of a picture how it went through the model and, when not in one piece, how far that is from
        one piece (`seams.measure_seams`), which takes a while.

    The task decides what is done beside the model. Super-resolution: a small image comes in, is enlarged by bicubic
    interpolation and then restored, unless the model enlarges by itself. Inpainting: the image comes with a mask, and
    known pixels stay as they are. Weights that were trained on pairs of photographs keep the size, whatever their task.

    Raises UnknownNameError when there are no such weights, task, backend, precision or way, DataError or RangeError for
    a task file that is not usable, CheckpointError when the weights file is not usable or was trained for another task,
    ShapeError when the model is not for so many channels, DeviceError when the device is not there, RangeError for
    memory, tiles or an overlap that cannot be, and for a strength outside [0, 1], or below 1 for inpainting, which has
    no input to mix with what it fills.
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
        report: bool = False,
    ) -> None:
        check_strength(strength)
        self.ensemble, self.strength = ensemble, strength
        self.device = resolve_device(device)
        self.backend = backend
        if precision not in PRECISIONS:
            raise UnknownNameError(f"unknown precision {precision!r}", f"one of {', '.join(PRECISIONS)}")
        self.precision, self.report = precision, report
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
        self.computed_again = 0
        """How many times something was computed again in float32, see `precision`."""
        self.model = model.to(self.device).eval()
        self.planner = Planner(
            self.model,
            self.device,
            self.channels,
            memory,
            way,
            tile,
            overlap,
            upscale=self.upscale,
            backend=backend,
            exact=precision == "float32",
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Restore a tensor (C, H, W) or (B, C, H, W), floating point, nominally in [0, 1], any H, W >= 1.

        C is `channels`. Returns float32 (3, H, W) or (B, 3, H, W), clipped to [0, 1], on the device of `image`; H and W
        times `enlarge` for super-resolution, or times `upscale` for a model that enlarges images, such as SwinIR with
        an up-sampler. Raises ShapeError or DtypeError for another input, RestorationError when the result is not finite
        or memory does not suffice.
        """
        return self._restored_or_warned(image, self.enlarge)

    def restore_prepared(self, image: Tensor) -> Tensor:
        """`__call__` for what `Degradation.prepared` gives, which is as large as the result: nothing is enlarged."""
        return self._restored_or_warned(image, 1)

    def _restored_or_warned(self, image: Tensor, factor: int) -> Tensor:
        before = self.computed_again
        restored = self._restored(image, factor)
        for note in self.notes_since(before):
            warnings.warn(note, RuntimeWarning, stacklevel=3)
        return restored

    def notes_since(self, computed_again: int) -> tuple[str, ...]:
        """What there is to say of all that was computed since `computed_again` was so much."""
        if self.computed_again == computed_again:
            return ()
        return (f"computed again in float32, or parts of it: in {self.precision} they were not finite or exploded",)

    def _restored(self, image: Tensor, factor: int) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != self.channels or image.numel() == 0:
            expected = f"({self.channels}, H, W) or (B, {self.channels}, H, W)"
            raise ShapeError(f"an image of shape {tuple(image.shape)}", expected)
        if not image.is_floating_point():
            raise DtypeError(f"an image of {image.dtype}", "floating point in [0, 1]", "Divide 8-bit values by 255.")
        size = f"{image.shape[-1]} x {image.shape[-2]} pixels"
        with out_of_memory_as(RestorationError, f"not enough memory on {self.device} for an image of {size}"):
            batch = enlarge(image.reshape(-1, *image.shape[-3:]).float(), factor)
            if self._choose(batch).way == "whole":
                batch = batch.to(self.device)
            evaluate = self._evaluated
            output = ensembled(evaluate, batch) if self.ensemble else evaluate(batch)
            restored = self.finished(output, enlarge(batch, output.shape[-1] // batch.shape[-1]))
            return restored.reshape(*image.shape[:-3], *restored.shape[-3:]).to(image.device)

    def _choose(self, batch: Tensor) -> Evaluation:
        return self.planner.choose(batch.shape[0], batch.shape[2], batch.shape[3])

    def _evaluated(self, batch: Tensor, evaluation: Evaluation | None = None) -> Tensor:
        """What the model makes of (B, C, H, W), not clipped, in one piece or in parts; by default as memory allows."""
        evaluation = evaluation or self._choose(batch)
        if evaluation.way == "whole":
            return self._run(self.seen(batch))
        if len(batch) > 1:  # one alone may be whole
            return torch.cat([self._evaluated(image[None]) for image in batch])
        output = batch.new_empty(3, self.upscale * batch.shape[2], self.upscale * batch.shape[3])

        def write(first: int, rows: Tensor) -> None:
            output[:, first : first + rows.shape[1]] = rows

        self.run_in_parts(TensorRows(self.seen(batch)[0]), write, evaluation)
        return output[None]

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
                self.computed_again += 1
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
        return self.restore_pictures([picture], [name])[0]

    def restore_pictures(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        """`restore_picture` for pictures of equal height and width, computed as one batch."""
        for picture, name in zip(pictures, names, strict=True):
            self.check_picture(picture, name or "the picture")
        images = [self.restorable(planes_of(picture)) for picture in pictures]
        before = self.computed_again
        restored = self._restored(images[0][None] if len(images) == 1 else torch.stack(images), self.enlarge)
        notes = self.notes_since(before)
        results = [self._picture(picture, pixels) for picture, pixels in zip(pictures, restored, strict=True)]
        return [
            replace(result, notes=(*result.notes, *notes, *(self.report_on(image) if self.report else ())))
            for result, image in zip(results, images, strict=True)
        ]

    def report_on(self, image: Tensor, evaluation: Evaluation | None = None) -> tuple[str, ...]:
        """How (C, H, W), restorable and not enlarged yet, goes through the model, or went, for people."""
        image = enlarge(image[None], self.enlarge)[0]
        evaluation = evaluation or self._choose(image[None])
        if evaluation.way == "whole":
            return (f"restored {evaluation}",)
        try:
            with out_of_memory_as(RestorationError, "there is not enough memory"):
                error = measure_seams(self._evaluated, image, evaluation, self.planner.fits_whole)
        except RestorationError as failed:
            return f"restored {evaluation}", f"it could not be compared with one piece: {failed}"
        return f"restored {evaluation}", "too little memory to compare with one piece" if error is None else str(error)

    @property
    def transform(self) -> RestorerTransform:
        """For the engine that works on files."""
        return RestorerTransform(self)

    def is_large(self, height: int, width: int) -> bool:
        """Whether a picture of that size does not fit into memory, with its result, and is to go by rows."""
        if self.planner.way == "whole":
            return False
        factor = self.enlarge * self.upscale
        picture = BYTES_OF_PICTURE * height * width * (1 + factor**2)
        room = self.planner.room_for_pictures()
        if self.device.type != "cpu":
            return picture > room
        try:
            evaluation = self.planner.choose(1, self.enlarge * height, self.enlarge * width, picture)
        except RestorationError:
            return True
        on_disk = evaluation.way == "disk" and not self.ensemble  # then beside the result, and to be continued
        return on_disk or picture + evaluation.bytes > room

    def _picture(self, before: Picture, pixels: Tensor) -> Picture:
        """A picture with restored pixels, and of what was not restored the rest of the one before."""
        factor = pixels.shape[1] // before.height
        beyond = enlarge(self.beyond(planes_of(before))[None], factor)[0]
        alpha = None if self.channels == 4 else before.alpha
        if alpha is not None and factor > 1:
            alpha = enlarge(alpha[None], factor)[0].clamp(0, 1)
        return replace(before, pixels=pixels + beyond, alpha=alpha)

    def restorable(self, planes: Tensor) -> Tensor:
        """What is restored of a picture's `planes_of`: colours within [0, 1]; for inpainting also what is missing."""
        colours = planes[:3].clamp(0, 1)
        return colours if self.channels == 3 else torch.cat([colours, missing_part(planes[3:])])

    def beyond(self, planes: Tensor) -> Tensor:
        """The rest of a picture's colours, (3, H, W), where they are not replaced."""
        rest = planes[:3] - planes[:3].clamp(0, 1)
        return rest if self.channels == 3 else rest * (1 - missing_part(planes[3:]))

    def check_picture(self, picture: Picture, name: str) -> None:
        """Raise RestorationError when a picture, called `name`, does not say what of it is missing, and must."""
        if self.channels == 4 and picture.alpha is None:
            raise RestorationError(
                f"{name} has no transparency", "an alpha channel, transparent where the image is to be filled"
            )

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
            "ensemble": self.ensemble,
            "strength": self.strength,
            "precision": self.precision,
            "memory, way or tiles": self.planner.settings(),
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
        transform_file(Job(Path(source), path, Path(source).name), self.transform, options)
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
        workers = many.sensible_workers(plan, self.device) if workers is None else workers
        self.planner.share = 1 / max(workers, 1)
        try:
            return many.run_batch(
                plan,
                self.transform,
                options,
                settings=self.settings(),
                again=again,
                workers=workers,
                batch=many.sensible_batch(self.device) if batch is None else batch,
                threads=many.sensible_threads(self.device),
                on_outcome=on_outcome,
            )
        finally:
            self.planner.share = 1.0


@dataclass(frozen=True)
class RestorerTransform:
    """What a restorer does with files; see `one.LargeTransform`.

    on_stage: is told of a picture that goes by rows how far it is, and of how much.
    """

    restorer: Restorer
    on_stage: Callable[[int, int], None] | None = None

    def __call__(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        return self.restorer.restore_pictures(pictures, names)

    def is_large(self, height: int, width: int) -> bool:
        return self.restorer.is_large(height, width)

    def by_rows(self, source: Path, target: Path, options: OutputOptions) -> tuple[str, ...]:
        from serpent_ir.restoration.large import restore_large

        return restore_large(self.restorer, source, target, options, self.restorer.settings(), self.on_stage)


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
