"""Name -> degradation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from serpent_ir.errors import UnknownNameError
from serpent_ir.tasks.degradation import Degradation, Operator
from serpent_ir.tasks.gaussian_blur import GaussianBlur
from serpent_ir.tasks.gaussian_noise import AdditiveGaussianNoise
from serpent_ir.tasks.options import TaskOption, resolve_options


@dataclass(frozen=True)
class TaskDefinition:
    """The options of a task and how its operators are made from them."""

    options: Mapping[str, TaskOption]
    operators: Callable[..., tuple[Operator, ...]]


def _deblur(blur_sigma: float, noise_sigma: float, kernel_size: int) -> tuple[Operator, ...]:
    return GaussianBlur(kernel_size, blur_sigma), AdditiveGaussianNoise(noise_sigma)


TASKS: dict[str, TaskDefinition] = {
    "deblur": TaskDefinition(
        options={
            "blur_sigma": TaskOption(3.0, 0.1, 50.0, "standard deviation of the blur in pixels"),
            "noise_sigma": TaskOption(0.05, 0.0, 1.0, "standard deviation of the noise, of the [0, 1] range"),
            "kernel_size": TaskOption(61, 1, 1001, "odd width of the blur kernel in pixels"),
        },
        operators=_deblur,
    ),
}


def list_tasks() -> list[str]:
    """The names that `create` accepts, sorted."""
    return sorted(TASKS)


def task_options(name: str) -> dict[str, TaskOption]:
    """The options that task `name` declares. Raises UnknownNameError when there is no such task."""
    return dict(_definition(name).options)


def create(name: str, **options: Any) -> Degradation:
    """The degradation of task `name`, with `options` in place of the task's defaults.

    `create("deblur")` blurs with a 61 x 61 Gaussian of standard deviation 3 and adds noise of sigma 0.05 (the paper's
    section 4; the standard deviation of the blur is our choice). Raises UnknownNameError for an unknown task or
    option, RangeError for a value out of range.
    """
    definition = _definition(name)
    resolved = resolve_options(name, definition.options, options)
    return Degradation(name, resolved, definition.operators(**resolved))


def _definition(name: str) -> TaskDefinition:
    if name not in TASKS:
        raise UnknownNameError(f"unknown task {name!r}", f"one of {', '.join(list_tasks())}")
    return TASKS[name]
