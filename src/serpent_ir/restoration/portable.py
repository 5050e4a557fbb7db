"""A restorer as it is sent to other machines: plain arguments, and the bytes of the files that they name."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from serpent_ir.errors import CheckpointError, RestorationError
from serpent_ir.models import find_weights
from serpent_ir.restoration.purpose import DEFAULT_TASK, named_task
from serpent_ir.restoration.restorer import Restorer
from serpent_ir.tasks import Degradation
from serpent_ir.tasks.task_file import is_task_file


@dataclass(frozen=True)
class Content:
    """A file: its name, without the folder, and its bytes."""

    name: str
    content: bytes = field(repr=False)

    def placed(self, folder: Path) -> Path:
        path = folder / self.name
        path.write_bytes(self.content)
        return path


@dataclass(frozen=True)
class PortableRestorer:
    """What makes equal restorers on machines that have none of this machine's files; see `portable_restorer`."""

    task: str | Content | None
    weights: Content
    arguments: Mapping[str, Any]

    def build(self, device: str) -> Restorer:
        """Raises what `Restorer` raises."""
        with tempfile.TemporaryDirectory(prefix="serpent-") as folder:
            task = self.task.placed(Path(folder)) if isinstance(self.task, Content) else self.task
            return Restorer(task, self.weights.placed(Path(folder)), device, **self.arguments)


def portable_restorer(
    task: str | Path | Degradation | None = None, model: str | Path | nn.Module | None = None, **arguments: Any
) -> PortableRestorer:
    """`Restorer(task, model, **arguments)` for other machines, all but its device.

    Embedded weights go along as well, so that a machine with another version of the package restores alike. Raises
    RestorationError for a module or a degradation, whose code other machines may lack, UnknownNameError when there are
    no such weights, CheckpointError or DataError when a file cannot be read.
    """
    if isinstance(model, nn.Module):
        raise RestorationError("a module is not sent to other machines", "the name of a model or a weights file")
    if isinstance(task, Degradation):
        raise RestorationError("a degradation is not sent to other machines", "the name of a task or a task file")
    name, _ = named_task(task)
    path = find_weights(model, DEFAULT_TASK if name is None else name)
    try:
        weights = Content(path.name, path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})", "a weights file") from error
    own = Content(Path(task).name, Path(task).read_bytes()) if task is not None and is_task_file(task) else name
    return PortableRestorer(own, weights, arguments)
