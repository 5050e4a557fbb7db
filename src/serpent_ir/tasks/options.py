"""The options that a task declares, the check of those that a caller gives, and strengths that vary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from serpent_ir.errors import RangeError, UnknownNameError

Strength = float | tuple[float, float]
"""How strong something is: one value, or (lowest, highest), between which each image of a batch gets its own."""


@dataclass(frozen=True)
class TaskOption:
    """A number that a task can be given: its default, its range and what it means.

    The default says what values are taken: an int whole numbers, a float numbers. With `varies`, a pair
    [lowest, highest] is taken as well: each image gets a value of its own from between, all equally likely.
    """

    default: int | Strength
    minimum: int | float
    maximum: int | float
    meaning: str
    varies: bool = False

    def checked(self, name: str, value: Any) -> int | Strength:
        """`value` as this option's type. Raises RangeError when it is nothing of that kind or out of range."""
        if self.varies and isinstance(value, list | tuple):
            lowest, highest = (self.number(name, end) for end in value) if len(value) == 2 else (math.nan, math.nan)
            if not lowest <= highest:
                raise RangeError(f"option {name} is {value!r}", f"{self.expected}, lowest first")
            return lowest, highest
        return self.number(name, value)

    def number(self, name: str, value: Any) -> int | float:
        fine = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
        if not fine or not self.minimum <= value <= self.maximum or (self.whole and value != int(value)):
            raise RangeError(f"option {name} is {value!r}", self.expected)
        return int(value) if self.whole else float(value)

    @property
    def whole(self) -> bool:
        return isinstance(self.default[0] if isinstance(self.default, tuple) else self.default, int)

    @property
    def expected(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        pair = ", or a pair of them [lowest, highest]" if self.varies else ""
        return f"{kind} from {self.minimum} to {self.maximum}{pair} ({self.meaning})"


def resolve_options(owner: str, declared: Mapping[str, TaskOption], given: Mapping[str, Any]) -> dict[str, Any]:
    """All declared options, the given values in place of the defaults. `owner` says whose they are, "task 'deblur'".

    Raises UnknownNameError for an option that is not declared, RangeError for a value out of range.
    """
    unknown = sorted(str(name) for name in set(given) - set(declared))
    if unknown:
        raise UnknownNameError(
            f"{owner} has no option {', '.join(map(repr, unknown))}", f"one of {', '.join(sorted(declared))}"
        )
    try:
        return {name: option.checked(name, given.get(name, option.default)) for name, option in declared.items()}
    except RangeError as error:
        raise RangeError(f"{owner}: {error.came}", error.expected) from None


def draw(strength: Strength, image: Tensor, generator: torch.Generator | None) -> Tensor:
    """One value for each image of a batch (B, ...): (B,) in the type of `image`, on `drawing_device`.

    A strength that does not vary draws nothing.
    """
    if not isinstance(strength, tuple):
        return torch.full((image.shape[0],), strength, dtype=image.dtype, device=drawing_device(image, generator))
    lowest, highest = strength
    return (lowest + (highest - lowest) * uniform((image.shape[0],), image, generator)).to(image.dtype)


def uniform(shape: tuple[int, ...], image: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random numbers in [0, 1), float64, on `drawing_device`."""
    device = image.device if generator is None else generator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    drawn = torch.rand(shape, generator=generator, device=device, dtype=dtype)
    return drawn.to(drawing_device(image, generator)).double()


def drawing_device(image: Tensor, generator: torch.Generator | None) -> torch.device:
    """Where values that are drawn for a batch lie, and what is made of them in float64 before it goes to the batch.

    The generator's device, without one that of `image`; the CPU in place of Apple's MPS, which has no float64.
    """
    device = image.device if generator is None else generator.device
    return torch.device("cpu") if device.type == "mps" else device


def check_strength(strength: Strength, fits: Callable[[float], bool], came: str, expected: str) -> None:
    """Raise RangeError unless both ends of `strength` fit and the lowest comes first. `came` says of what it is."""
    ends = strength if isinstance(strength, tuple) else (strength, strength)
    if not all(fits(end) for end in ends) or ends[0] > ends[1]:
        raise RangeError(f"{came} of {strength}", f"{expected}, or two of them, lowest first")


def of_255(strength: Strength) -> Strength:
    """A strength given in levels of 255, of the [0, 1] range."""
    return (strength[0] / 255, strength[1] / 255) if isinstance(strength, tuple) else strength / 255
