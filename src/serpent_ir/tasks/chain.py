"""Operators made of operators: one after the other, one of several, and only now and then."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serpent_ir.errors import RangeError
from serpent_ir.tasks.degradation import Operator
from serpent_ir.tasks.options import uniform


class Chain:
    """`operators` one after the other."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.operators = tuple(operators)

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        for operator in self.operators:
            image = operator(image, generator)
        return image


class OneOf:
    """Each image of a batch goes through one of `operators`, all equally likely, which keep the size of an image."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.operators = tuple(operators)

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chosen = (uniform((len(image),), image, generator) * len(self.operators)).long()
        for index, operator in enumerate(self.operators):
            image = _applied_to(chosen == index, operator, image, generator)
        return image


class Sometimes:
    """Each image of a batch goes through `operator` with the probability `presence`, else it stays bit for bit.

    The operator must keep the size of an image. Raises RangeError unless 0 <= presence <= 1.
    """

    def __init__(self, operator: Operator, presence: float) -> None:
        if not 0 <= presence <= 1:
            raise RangeError(f"presence {presence}", "a probability from 0 to 1")
        self.operator, self.presence = operator, presence

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        chosen = uniform((len(image),), image, generator) < self.presence
        return _applied_to(chosen, self.operator, image, generator)


def _applied_to(chosen: Tensor, operator: Operator, image: Tensor, generator: torch.Generator | None) -> Tensor:
    """The batch with the `chosen` images (B,) bool, and nothing else, sent through `operator` together."""
    indices = chosen.nonzero().squeeze(1).to(image.device)
    if len(indices) == 0:
        return image
    if len(indices) == len(image):
        return operator(image, generator)
    return image.index_copy(0, indices, operator(image[indices], generator))
