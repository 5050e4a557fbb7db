"""A model that is evaluated: where its weights are, what they were trained on, and how it is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from serpent_ir.errors import CheckpointError, ShapeError, UnknownNameError
from serpent_ir.evaluation.protocol import Pair
from serpent_ir.evaluation.results import CLEAN, DEGRADED, ModelFacts
from serpent_ir.models import ModelCard, digest_of_hashes, find_weights, list_embedded
from serpent_ir.restoration import Restorer
from serpent_ir.restoration.purpose import DEFAULT_TASK
from serpent_ir.tasks import Degradation, list_tasks

SAY_LITTLE = ("best", "model", DEGRADED, CLEAN)
"""What weights files in run folders are called, and names that are taken."""

HASHES, DIGEST, HASHES_FILE = "training_hashes", "training_images_digest", "training_images.json"

ModelSource = str | Path | nn.Module
"""A name with embedded weights, a weights file, or a module; see `Evaluator`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Contestant:
    """`restorer` runs the model; `facts` are those that the result tells, `training_hashes` None when not known."""

    restorer: Restorer
    facts: ModelFacts
    training_hashes: frozenset[str] | None

    def __call__(self, pair: Pair) -> Tensor:
        """The restored image (3, H, W), float32 in [0, 1].

        A model that enlarges images by itself gets the damaged image, every other one the prepared one, without the
        mask when it is made for three channels. Raises RestorationError, and ShapeError when the sizes do not fit.
        """
        image = pair.damaged if self.restorer.upscale > 1 else pair.degraded
        restored = self.restorer.restore_prepared(image[: self.restorer.channels])
        height, width = pair.clean.shape[-2:]
        return restored[:, :height, :width]


def load_contestant(
    label: str, source: ModelSource, task: Degradation, device: str | None, backend: str | None
) -> Contestant:
    """The model on its device, whatever it was trained for. task: of the evaluation.

    Raises UnknownNameError, CheckpointError, DeviceError;
    ShapeError when the model cannot take the task's images.
    """
    if isinstance(source, nn.Module):
        masked = getattr(getattr(source, "config", None), "in_channels", 3) == 4
        restorer = Restorer(task if masked else None, source, device, backend)
        facts, hashes = facts_of_module(label, source), None
    else:
        path = find_weights(source, task.name)
        restorer = Restorer(None, path, device, backend)
        assert restorer.card is not None
        hashes = training_hashes(restorer.card, path)
        facts = facts_of_card(label, restorer.card, hashes is not None)
    check_fit(label, restorer, task)
    return Contestant(restorer, facts, hashes)


def weights_for(task: str) -> list[str]:
    """The names of all embedded weights for a task; for one of the user's own those for `photo`, which are blind.

    Raises UnknownNameError when there are none.
    """
    wanted = task if task in list_tasks() else DEFAULT_TASK
    names = [path.stem for of_task, _, path in list_embedded() if of_task == wanted]
    if not names:
        raise UnknownNameError(f"no embedded weights for task {task!r}", "a model named by --model")
    return names


def labelled(sources: Sequence[ModelSource] | Mapping[str, ModelSource]) -> dict[str, ModelSource]:
    """A name for each model: of a file its stem, with as many folders before it as tell it from the others.

    A stem that says little (`SAY_LITTLE`) has one in any case. Raises UnknownNameError for no model at all, or one
    given twice.
    """
    if isinstance(sources, Mapping):
        named = dict(sources)
    else:
        named = {}
        for label, source in zip(short_labels([label_parts(source) for source in sources]), sources, strict=True):
            if label in named:
                raise UnknownNameError(f"two models are called {label!r}", "models with different names")
            named[label] = source
    if not named or named.keys() & {DEGRADED, CLEAN}:
        raise UnknownNameError(f"models {list(named)}", f"at least one, and none called {DEGRADED!r} or {CLEAN!r}")
    return named


def short_labels(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """The last of the parts of each model, and more of them where labels are equal, as long as there are more."""
    taken = [2 if names[-1] in SAY_LITTLE else 1 for names in parts]
    while True:
        labels = ["/".join(names[-count:]) for names, count in zip(parts, taken, strict=True)]
        longer = [count + (labels.count(label) > 1) for label, count in zip(labels, taken, strict=True)]
        longer = [min(count, len(names)) for names, count in zip(parts, longer, strict=True)]
        if longer == taken:
            return labels
        taken = longer


def label_parts(source: ModelSource) -> tuple[str, ...]:
    """What a model may be called after, the most telling last: of a file the folders it lies in, and its stem."""
    if isinstance(source, nn.Module):
        return (type(source).__name__,)
    if isinstance(source, Path) or "." in source:
        path = Path(source).resolve()
        return (*path.parts[1:-1], path.stem)
    return (source,)


def check_fit(label: str, restorer: Restorer, task: Degradation) -> None:
    """Raise ShapeError unless the model can be given the task's images."""
    if restorer.upscale not in (1, task.enlarge):
        came = f"{label} enlarges images {restorer.upscale} times"
        raise ShapeError(came, f"a model that enlarges them {task.enlarge} times")
    if restorer.channels not in (3, task.channels):
        came = f"{label} takes images of {restorer.channels} channels"
        raise ShapeError(came, f"a model for {task.channels} channels")


def facts_of_module(label: str, model: nn.Module) -> ModelFacts:
    parameters = sum(weight.numel() for weight in model.parameters())
    return ModelFacts(label, {"model": type(model).__name__, "parameters": parameters})


def facts_of_card(label: str, card: ModelCard, hashes_known: bool) -> ModelFacts:
    shown = dataclasses.asdict(card)
    shown["provenance"] = {key: value for key, value in card.provenance.items() if key != HASHES}
    return ModelFacts(label, shown, card.task, training_data(card), hashes_known)


def training_hashes(card: ModelCard, path: Path) -> frozenset[str] | None:
    """The content hashes of the images that the weights were trained on; None when nobody listed them.

    They stand in the weights' provenance, or, where they are many, in `training_images.json` of the run's folder. Such
    a file beside the weights is theirs when it has the digest that they hold; else it says nothing of them.
    Raises CheckpointError when hashes, or the file where a digest asks for it, cannot be read.
    """
    hashes, digest, beside = card.provenance.get(HASHES), card.provenance.get(DIGEST), path.parent / HASHES_FILE
    if hashes is not None:
        return frozenset(texts(hashes, path))
    if digest is None or not beside.is_file():
        return None
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside} cannot be read ({error})", "the file that training wrote") from error
    listed = texts(content.get(HASHES) if isinstance(content, dict) else content, beside)
    return frozenset(listed) if digest_of_hashes(listed) == digest else None


def texts(hashes: Any, path: Path) -> list[str]:
    """`hashes` of the file `path`. Raises CheckpointError unless they are a list of texts."""
    if not isinstance(hashes, list) or not all(isinstance(one, str) for one in hashes):
        raise CheckpointError(f"{HASHES} of {path} are no list of texts", "content hashes of images")
    return hashes


def training_data(card: ModelCard) -> str | None:
    """ "1030 images of bsd432, t91": what the weights say they were trained on."""
    recipe: Any = card.provenance.get("recipe")
    folders = recipe.get("data", []) if isinstance(recipe, Mapping) else []
    names = [str(folder["path"]) for folder in folders if isinstance(folder, Mapping) and "path" in folder]
    count = card.provenance.get("training_images")
    parts = [*([f"{count} images"] if count else []), *([", ".join(names)] if names else [])]
    return " of ".join(parts) or None
