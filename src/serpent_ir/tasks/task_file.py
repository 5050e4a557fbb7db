"""What stands behind `--task`: the name of a registered task, or a file with a list of operators."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from serpent_ir.errors import DataError, UnknownNameError
from serpent_ir.tasks.degradation import Degradation
from serpent_ir.tasks.registry import compose, create, list_tasks

SUFFIXES = (".json", ".yaml", ".yml")


def is_task_file(task: str | os.PathLike[str]) -> bool:
    """Whether `task` is taken for the path of a task file rather than for a name."""
    return os.fspath(task).lower().endswith(SUFFIXES)


def load_task(task: str | os.PathLike[str], **options: Any) -> Degradation:
    """The degradation of a registered task with `options`, or of a file that ends in .json, .yaml or .yml.

    Such a file holds a list of operators, see operators.py; the task is named after it. Raises UnknownNameError and
    RangeError as `create` and `compose` do, and for options beside a file; DataError when the file cannot be read
    or is called like a registered task.
    """
    if not is_task_file(task):
        return create(os.fspath(task), **options)
    path = Path(task)
    if options:
        raise UnknownNameError(
            f"options {', '.join(sorted(options))} beside the task file {path}", "a registered task",
            "Write the values into the file.",
        )  # fmt: skip
    if path.stem in list_tasks():
        came = f"task file {path} has the name of the registered task {path.stem!r}"
        raise DataError(came, "a name of its own, after which the task is called", "Rename the file.")
    return compose(path.stem, read_task_file(path))


def read_task_file(path: Path) -> Any:
    """What the file holds. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix.lower() == ".json" else parse_yaml(text)
    except OSError as error:
        raise DataError(f"task file {path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"task file {path} cannot be read ({reason})", "JSON or YAML, as its suffix says") from error


def parse_yaml(text: str) -> Any:
    """Raises ValueError for what is no YAML."""
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from error
