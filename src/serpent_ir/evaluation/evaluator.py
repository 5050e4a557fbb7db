"""Photographs through degradation and model to scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from serpent_ir.errors import DataError, ImageReadError, RangeError, RestorationError, ShapeError, out_of_memory_as
from serpent_ir.evaluation.panel import PanelRow, centre
from serpent_ir.evaluation.protocol import Pair, measure, read_pair
from serpent_ir.evaluation.results import Evaluation, FailedImage, ImageScore
from serpent_ir.files import printable
from serpent_ir.images import list_folder
from serpent_ir.machine import describe_machine
from serpent_ir.restoration import Degrader, Restorer

OnImage = Callable[[int, int, "ImageScore | FailedImage"], None]
PANEL_IMAGE_SIDE = 512


class Evaluator:
    """A model on a task: restores degraded photographs and scores them.

    task, options: a registered task and what differs from its defaults. model, device, backend: as `Restorer` takes
    them. seed, quantized: see `read_pair`.

    Raises UnknownNameError, CheckpointError and others as `Degrader` and `Restorer` do; ShapeError for a model that
    enlarges images.
    """

    def __init__(
        self,
        task: str = "deblur",
        model: str | Path | nn.Module = "serpent-b",
        *,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        quantized: bool = False,
        device: str | None = None,
        backend: str | None = None,
    ) -> None:
        self.degrader = Degrader(task, seed, **(options or {}))
        self.restorer = Restorer(task=task, model=model, device=device, backend=backend)
        upscale = getattr(getattr(self.restorer.model, "config", None), "upscale", 1)
        if upscale != 1:
            raise ShapeError(f"the model enlarges images {upscale} times", "one that keeps their size")
        self.model_card = describe_model(self.restorer)
        self.quantized = quantized

    def read_pair(self, folder: Path, name: str) -> Pair:
        return read_pair(folder, name, self.degrader, self.quantized)

    def evaluate(self, folder: str | Path, limit: int | None = None, on_image: OnImage | None = None) -> Evaluation:
        """Score the photographs in `folder` and below, in the order of their paths; at most `limit` of them.

        A file that cannot be read, is too small for SSIM, cannot be restored, or gets a score that is not finite
        becomes a `FailedImage`; the others are evaluated. `on_image(done, total, result)` is called after each. Files
        whose name is not that of an image are listed only.

        Raises DataError when the folder is missing or holds no image, or none of them can be evaluated; RangeError
        when `limit` is not positive.
        """
        folder = Path(folder)
        if limit is not None and limit < 1:
            raise RangeError(f"limit {limit}", "a positive number of images")
        content = list_folder(folder)
        paths = content.images[:limit]
        if not paths:
            came = f"{folder} holds no image among {len(content.others)} files"
            raise DataError(came, "a folder of clean photographs")
        results: list[ImageScore | FailedImage] = []
        for path in paths:
            results.append(self.evaluate_image(folder, path.relative_to(folder).as_posix()))
            if on_image is not None:
                on_image(len(results), len(paths), results[-1])
        images = tuple(result for result in results if isinstance(result, ImageScore))
        failed = tuple(result for result in results if isinstance(result, FailedImage))
        if not images:
            raise DataError(
                f"none of {len(failed)} images in {folder} could be evaluated; the first: {failed[0].reason}"
            )
        return Evaluation(
            folder=folder.resolve().name,
            task=self.degrader.operator.name,
            options=dict(self.degrader.operator.options),
            model=self.model_card,
            seed=self.degrader.seed,
            quantized=self.quantized,
            machine=describe_machine(),
            images=images,
            failed=failed,
            ignored=tuple(path.relative_to(folder).as_posix() for path in content.others),
        )

    def evaluate_image(self, folder: Path, name: str) -> ImageScore | FailedImage:
        try:
            with out_of_memory_as(RestorationError, "there is not enough memory for this image"):
                pair = self.read_pair(folder, name)
                restored = self.restorer(pair.degraded)
                height, width = pair.clean.shape[1:]
                before, after = measure(pair.degraded, pair.clean), measure(restored, pair.clean)
                return ImageScore(name, height, width, before, after)
        except (ImageReadError, RangeError, RestorationError, ShapeError) as error:
            return FailedImage(name, str(error))

    def panel_rows(self, evaluation: Evaluation, folder: str | Path) -> list[PanelRow]:
        """The images with the smallest, the median and the largest gain, degraded and restored once more."""
        chosen = typical_and_extreme(evaluation.images)
        return [self.panel_row(Path(folder), score, remark) for score, remark in chosen]

    def panel_row(self, folder: Path, score: ImageScore, remark: str) -> PanelRow:
        pair = self.read_pair(folder, score.name)
        images = (pair.degraded, self.restorer(pair.degraded), pair.clean)
        captions = [f"{scores.psnr:.2f} dB, SSIM {scores.ssim:.3f}" for scores in (score.input, score.output)]
        size = f"{score.width} x {score.height} pixels"
        captions.append(f"centre of {size}" if max(score.height, score.width) > PANEL_IMAGE_SIDE else size)
        cells = tuple((centre(image, PANEL_IMAGE_SIDE), text) for image, text in zip(images, captions, strict=True))
        return PanelRow(f"{printable(score.name)}: {remark}, {score.gain:+.2f} dB", cells)


def typical_and_extreme(scores: tuple[ImageScore, ...]) -> list[tuple[ImageScore, str]]:
    """The images of smallest, median and largest gain, with those words; fewer when there are fewer images."""
    ranked = sorted(scores, key=lambda score: (score.gain, score.name))
    last = len(ranked) - 1
    if last == 0:
        return [(ranked[0], "gain")]
    remarks = {last // 2: "median gain", 0: "smallest gain", last: "largest gain"}  # of two images, none is the median
    return [(ranked[rank], remark) for rank, remark in sorted(remarks.items())]


def describe_model(restorer: Restorer) -> dict[str, Any]:
    """The card of the weights in use; of a module, its class and number of parameters."""
    if restorer.card is not None:
        return dataclasses.asdict(restorer.card)
    model = restorer.model
    return {"model": type(model).__name__, "parameters": sum(weight.numel() for weight in model.parameters())}
