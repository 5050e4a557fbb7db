"""Named errors. Each message says what came, what was expected, and what to do.

Every error the package raises on purpose derives from `SerpentError` and also from the built-in exception that a caller
would expect (`ValueError`, `TypeError`, `OSError`, ...): both `except SerpentError` and ordinary handlers work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SerpentError(Exception):
    """Base of all errors raised on purpose by this package.

    `came` and `expected` are phrases without a full stop; `remedy`, when given, is a whole sentence.
    """

    def __init__(self, came: str, expected: str = "", remedy: str = "") -> None:
        self.came, self.expected, self.remedy = came, expected, remedy
        message = f"{came}; expected {expected}." if expected else f"{came}."
        super().__init__(f"{message} {remedy}".strip())

    def __reduce__(self) -> tuple[type[SerpentError], tuple[str, str, str]]:
        return type(self), (self.came, self.expected, self.remedy)


class ShapeError(SerpentError, ValueError):
    """A tensor has the wrong number of dimensions or sizes that do not agree."""


class DtypeError(SerpentError, TypeError):
    """A tensor has an element type that is not supported here."""


class DeviceError(SerpentError, ValueError):
    """Tensors lie on different devices, or on one that the chosen backend cannot use."""


class RangeError(SerpentError, ValueError):
    """A value lies outside the range in which the operation is defined."""


class UnknownNameError(SerpentError, ValueError):
    """A model, task, backend or option of that name does not exist."""


class BackendError(SerpentError, RuntimeError):
    """A backend was asked for that is not available on this machine."""


class CheckpointError(SerpentError, ValueError):
    """A weights file is missing, damaged, or of a kind that is not read."""


class ImageReadError(SerpentError, OSError):
    """A file cannot be read as an image."""


class ImageWriteError(SerpentError, OSError):
    """An image cannot be written where or as was asked."""


class FileWriteError(SerpentError, OSError):
    """A result that is not an image cannot be written where it was asked."""


class RestorationError(SerpentError, RuntimeError):
    """A model gave no usable image: values that are not finite, or too little memory."""


class RecipeError(SerpentError, ValueError):
    """A training recipe holds an unknown field or a value that cannot be used."""


class TrainingError(SerpentError, RuntimeError):
    """Training cannot go on."""


class DataError(SerpentError, ValueError):
    """A data folder is missing, empty, or does not hold what is needed."""


class MissingExtraError(SerpentError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


# What torch and libraries below it say; only some of them have an exception of their own for it.
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory object",
)


def lacks_memory(error: BaseException | str) -> bool:
    """Whether an error, or the message of one, says that memory did not suffice."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def out_of_memory_as(kind: type[SerpentError], came: str) -> Iterator[None]:
    """Within the block, `kind(came)` is raised in place of Python's or torch's errors for lack of memory."""
    try:
        yield
    except SerpentError:
        raise
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            raise kind(came, remedy="Free memory, or take a smaller image.") from error
        raise
