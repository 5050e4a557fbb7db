"""The options that a task declares, and the check of those that a caller gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serpent_ir.errors import RangeError, UnknownNameError


@dataclass(frozen=True)
class TaskOption:
    """A number that a task can be given: its default (whose type, int or float, is the option's type) and its range."""

    default: int | float
    minimum: int | float
    maximum: int | float
    meaning: str

    def checked(self, name: str, value: Any) -> int | float:
        """`value` as this option's type. Raises RangeError when it is no number of that kind or out of range."""
        whole = isinstance(self.default, int)
        kind = "a whole number" if whole else "a number"
        expected = f"{kind} from {self.minimum} to {self.maximum} ({self.meaning})"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RangeError(f"option {name} is {value!r}", expected)
        if not self.minimum <= value <= self.maximum or (whole and value != int(value)):
            raise RangeError(f"option {name} is {value!r}", expected)
        return int(value) if whole else float(value)


def resolve_options(task: str, declared: Mapping[str, TaskOption], given: Mapping[str, Any]) -> dict[str, int | float]:
    """All declared options, the given values in place of the defaults.

    Raises UnknownNameError for an option that the task does not declare, RangeError for a value out of range.
    """
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise UnknownNameError(
            f"task {task!r} has no option {', '.join(map(repr, unknown))}", f"one of {', '.join(sorted(declared))}"
        )
    return {name: option.checked(name, given.get(name, option.default)) for name, option in declared.items()}
