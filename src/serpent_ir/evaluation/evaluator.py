"""Photographs through degradation and models to scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from serpent_ir.errors import (
    DataError,
    ImageReadError,
    RangeError,
    RestorationError,
    SerpentError,
    ShapeError,
    out_of_memory_as,
)
from serpent_ir.evaluation.contestant import Contestant, ModelSource, labelled, load_contestant
from serpent_ir.evaluation.protocol import Pair, read_pair
from serpent_ir.evaluation.results import CLEAN, DEGRADED, Evaluation, FailedImage, ImageScores, ModelFacts
from serpent_ir.evaluation.scoring import Scoring
from serpent_ir.images import list_folder
from serpent_ir.machine import describe_machine
from serpent_ir.metrics.lpips_weights import ALEXNET
from serpent_ir.restoration import Degrader
from serpent_ir.tasks import Degradation

OnImage = Callable[[int, int, "ImageScores | FailedImage"], None]
OnPictures = Callable[[ImageScores, Mapping[str, Tensor]], None]


class Evaluator:
    """Models on a task: restores degraded photographs with each of them, and scores the results.

    task, options: a registered task and what differs from its defaults; or a task file, or a degradation.
    models: each a name with embedded weights (`serpent-b`: those for the task; `deblur-serpent-b`: those, whatever the
    task is), a weights file, or a module; by their labels, or in a list. Which task they were trained for does not
    matter here. seed, quantized: see `read_pair`. device, backend: as `Restorer` takes them.

    Raises UnknownNameError, CheckpointError and others as `Degrader` and `Restorer` do; ShapeError for a model that
    cannot take the task's images.
    """

    def __init__(
        self,
        task: str | Path | Degradation,
        models: Sequence[ModelSource] | Mapping[str, ModelSource],
        *,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        quantized: bool = False,
        scoring: Scoring | None = None,
        device: str | None = None,
        backend: str | None = None,
    ) -> None:
        self.degrader = Degrader(task, seed, **(options or {}))
        self.quantized = quantized
        self.scoring = scoring or Scoring()
        self.contestants = [
            load_contestant(label, source, self.degrader.operator, device, backend)
            for label, source in labelled(models).items()
        ]

    @property
    def labels(self) -> list[str]:
        """The models' names, in order."""
        return [contestant.facts.label for contestant in self.contestants]

    def read_pair(self, folder: Path, name: str) -> Pair:
        return read_pair(folder, name, self.degrader, self.quantized)

    def evaluate(
        self,
        folder: str | Path,
        limit: int | None = None,
        on_image: OnImage | None = None,
        on_pictures: OnPictures | None = None,
    ) -> Evaluation:
        """Score the photographs in `folder` and below, in the order of their paths; at most `limit` of them.

        Each image is degraded once, and every model gets the same. A file that cannot be read, is too small for the
        metrics, cannot be restored by one of the models, or gets a score that is no number becomes a `FailedImage`;
        the others are evaluated. `on_image(done, total, result)` is called after each; `on_pictures(scores, images)`
        after each that was evaluated, with the image (3, H, W) of every row and the one called "clean". Files whose
        name is not that of an image are listed only.

        Raises DataError when the folder is missing, holds no image, or pairs (clean/ and degraded/), or none of its
        images can be evaluated; RangeError when `limit` is not positive.
        """
        folder = Path(folder)
        if limit is not None and limit < 1:
            raise RangeError(f"limit {limit}", "a positive number of images")
        if all((folder / name).is_dir() for name in ("clean", "degraded")):
            raise DataError(
                f"{folder} holds clean/ and degraded/, and pairs are not evaluated",
                "a folder of clean photographs, which the task degrades",
                f"Name {folder / 'clean'}.",
            )
        content = list_folder(folder)
        paths = content.images[:limit]
        if not paths:
            came = f"{folder} holds no image among {len(content.others)} files"
            raise DataError(came, "a folder of clean photographs")
        images: list[ImageScores] = []
        failed: list[FailedImage] = []
        for path in paths:
            name = path.relative_to(folder).as_posix()
            result: ImageScores | FailedImage
            try:
                with out_of_memory_as(RestorationError, "there is not enough memory for this image"):
                    result, pictures = self.evaluate_image(folder, name)
                    if on_pictures is not None:
                        on_pictures(result, pictures)
            except (ImageReadError, RangeError, RestorationError, ShapeError) as error:
                result = FailedImage(name, str(error))
                failed.append(result)
            else:
                images.append(result)
            if on_image is not None:
                on_image(len(images) + len(failed), len(paths), result)
        if not images:
            raise DataError(
                f"none of {len(failed)} images in {folder} could be evaluated; the first: {failed[0].reason}"
            )
        return Evaluation(
            folder=folder.resolve().name,
            task=self.degrader.operator.name,
            options=dict(self.degrader.operator.options),
            seed=self.degrader.seed,
            quantized=self.quantized,
            models=tuple(facts_with_overlap(contestant, images) for contestant in self.contestants),
            machine=describe_machine(),
            images=tuple(images),
            failed=tuple(failed),
            ignored=tuple(path.relative_to(folder).as_posix() for path in content.others),
            channel=self.scoring.channel,
            border=self.scoring.border,
            lpips=None if self.scoring.lpips is None else f"version 0.1, {ALEXNET}",
        )

    def evaluate_image(self, folder: Path, name: str) -> tuple[ImageScores, dict[str, Tensor]]:
        """The scores of every row, and its picture (3, H, W); "clean" is among the pictures.

        Raises ImageReadError, RangeError, RestorationError or ShapeError.
        """
        return self.evaluate_pair(name, self.read_pair(folder, name))

    def evaluate_pair(self, name: str, pair: Pair) -> tuple[ImageScores, dict[str, Tensor]]:
        """`evaluate_image` for a photograph that was read and degraded already."""
        pictures = {DEGRADED: pair.degraded[:3]}
        for contestant in self.contestants:
            with errors_of(contestant.facts.label):
                pictures[contestant.facts.label] = contestant(pair)
        scores = {}
        for row, picture in pictures.items():
            with errors_of(row):
                scores[row] = self.scoring(picture, pair.clean)
        height, width = pair.clean.shape[1:]
        return ImageScores(name, height, width, pair.content_hash, scores), {**pictures, CLEAN: pair.clean}


@contextmanager
def errors_of(row: str) -> Iterator[None]:
    """Within the block, errors say which row they concern."""
    try:
        yield
    except SerpentError as error:
        raise type(error)(f"{row}: {error.came}", error.expected, error.remedy) from error


def facts_with_overlap(contestant: Contestant, images: Sequence[ImageScores]) -> ModelFacts:
    """The facts of a model, with the names of the evaluated images that it was trained on."""
    hashes = contestant.training_hashes or frozenset()
    seen = tuple(image.name for image in images if image.content_hash in hashes)
    return dataclasses.replace(contestant.facts, trained_on=seen)
