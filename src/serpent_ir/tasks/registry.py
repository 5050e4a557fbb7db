"""Name -> degradation; and degradations of one's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serpent_ir.errors import RangeError, UnknownNameError
from serpent_ir.tasks.degradation import Degradation
from serpent_ir.tasks.holes import Holes
from serpent_ir.tasks.operators import parse_operators
from serpent_ir.tasks.options import Strength, TaskOption, of_255, resolve_options
from serpent_ir.tasks.resize import Downscale

Entries = list[dict[str, Any]]
"""A list of operators as data, see operators.py."""


@dataclass(frozen=True)
class TaskDefinition:
    """The options of a task and the list of operators they stand for."""

    options: Mapping[str, TaskOption]
    operators: Callable[..., Entries]


def _deblur(blur_sigma: Strength, noise_sigma: Strength, kernel_size: int) -> Entries:
    return [
        {"operator": "gaussian_blur", "sigma": blur_sigma, "taps": kernel_size},
        {"operator": "gaussian_noise", "sigma": noise_sigma},
    ]


def _motion_deblur(length: Strength, noise_sigma: Strength) -> Entries:
    return [{"operator": "motion_blur", "length": length}, {"operator": "gaussian_noise", "sigma": noise_sigma}]


def _denoise(sigma: Strength) -> Entries:
    return [{"operator": "gaussian_noise", "sigma": of_255(sigma)}]


def _jpeg(quality: Strength) -> Entries:
    return [{"operator": "jpeg", "quality": quality}]


def _inpaint(missing: Strength) -> Entries:
    return [{"operator": "holes", "missing": missing}]


def _super_resolution(factor: int) -> Callable[..., Entries]:
    def operators(noise_sigma: Strength) -> Entries:
        return [{"operator": "downscale", "factor": factor}, {"operator": "gaussian_noise", "sigma": noise_sigma}]

    return operators


def _photo(
    blur: float, defocus: float, motion: float, scale: float, noise: float, quality: int, presence: float
) -> Entries:
    blurs: Entries = [
        {"operator": "gaussian_blur", "sigma": [0, blur], "taps": 2 * math.ceil(4 * blur) + 1},
        {"operator": "anisotropic_blur", "sigma": [0, blur]},
        {"operator": "defocus_blur", "radius": [0, defocus]},
        {"operator": "motion_blur", "length": [0, motion]},
    ]
    return [
        {"one_of": blurs, "presence": presence},
        {"operator": "rescale", "factor": [1, scale], "presence": presence / 2},
        {"operator": "poisson_noise", "sigma": [0, noise / 255], "presence": presence / 2},
        {"operator": "gaussian_noise", "sigma": [0, noise / 255], "presence": presence / 2},
        {"operator": "jpeg", "quality": [quality, 95], "presence": presence},
    ]


_NOISE = TaskOption(0.05, 0.0, 1.0, "standard deviation of the noise, of the range", varies=True)

TASKS: dict[str, TaskDefinition] = {
    "photo": TaskDefinition(
        options={
            "blur": TaskOption(3.0, 0.0, 20.0, "largest standard deviation of a Gaussian blur in pixels"),
            "defocus": TaskOption(4.0, 0.0, 20.0, "largest radius of a disc out of focus in pixels"),
            "motion": TaskOption(10.0, 0.0, 60.0, "longest path of the camera in pixels"),
            "scale": TaskOption(3.0, 1.0, 8.0, "largest factor by which the image was made smaller and larger again"),
            "noise": TaskOption(30.0, 0.0, 100.0, "largest standard deviation of the noise, of 255"),
            "quality": TaskOption(25, 1, 95, "lowest quality of JPEG; the highest is 95"),
            "presence": TaskOption(0.5, 0.0, 1.0, "how likely blur and JPEG are; scaling and each noise are half that"),
        },
        operators=_photo,
    ),
    "denoise": TaskDefinition(
        options={"sigma": TaskOption((0.0, 55.0), 0.0, 255.0, "standard deviation of the noise, of 255", varies=True)},
        operators=_denoise,
    ),
    "deblur": TaskDefinition(
        options={
            "blur_sigma": TaskOption(3.0, 0.1, 50.0, "standard deviation of the blur in pixels", varies=True),
            "noise_sigma": _NOISE,
            "kernel_size": TaskOption(61, 1, 1001, "odd width of the blur kernel in pixels"),
        },
        operators=_deblur,
    ),
    "motion-deblur": TaskDefinition(
        options={
            "length": TaskOption((5.0, 25.0), 0.0, 200.0, "length of the camera's path in pixels", varies=True),
            "noise_sigma": TaskOption(0.01, 0.0, 1.0, "standard deviation of the noise, of the range", varies=True),
        },
        operators=_motion_deblur,
    ),
    "jpeg": TaskDefinition(
        options={"quality": TaskOption((10, 90), 1, 100, "quality of the JPEG file", varies=True)}, operators=_jpeg
    ),
    "inpaint": TaskDefinition(
        options={"missing": TaskOption((0.05, 0.4), 0.0, 0.9, "share of the image that is missing", varies=True)},
        operators=_inpaint,
    ),
    **{
        f"sr{factor}": TaskDefinition(options={"noise_sigma": _NOISE}, operators=_super_resolution(factor))
        for factor in (2, 4, 8)
    },
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
    resolved = resolve_options(f"task {name!r}", definition.options, options)
    return _degradation(name, resolved, definition.operators(**resolved))


def compose(name: str, operators: Sequence[Mapping[str, Any]]) -> Degradation:
    """A degradation of one's own from a list of operators as data, see operators.py.

    `compose("mine", [{"operator": "gaussian_blur", "sigma": [0.5, 2]}, {"operator": "jpeg", "quality": 50}])`.
    Raises UnknownNameError for an operator or option that does not exist, RangeError for what cannot be: both say
    where in the list.
    """
    task = _degradation(name, {"operators": operators}, operators)
    return replace(task, options=copy.deepcopy(task.options))  # now that its depth is known to be small


def _degradation(name: str, options: dict[str, Any], entries: Any) -> Degradation:
    operators = parse_operators(entries, f"task {name!r}")
    enlarge = math.prod(operator.factor for operator in operators if isinstance(operator, Downscale))
    holes = [isinstance(operator, Holes) for operator in operators]
    if any(holes[:-1]) or (any(holes) and enlarge > 1):
        raise RangeError(f"task {name!r} goes on after holes, or makes the image smaller", "holes last, at full size")
    return Degradation(name, options, operators, enlarge, channels=4 if any(holes) else 3)


def _definition(name: str) -> TaskDefinition:
    if name not in TASKS:
        raise UnknownNameError(f"unknown task {name!r}", f"one of {', '.join(list_tasks())}")
    return TASKS[name]
