"""What of a degradation can be done once more: which operators draw nothing but noise and their strengths."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from serpent_ir.tasks.chain import Chain, Sometimes
from serpent_ir.tasks.defocus_blur import DefocusBlur
from serpent_ir.tasks.degradation import NOISE, Degradation, Operator
from serpent_ir.tasks.gaussian_blur import GaussianBlur
from serpent_ir.tasks.jpeg import Jpeg
from serpent_ir.tasks.operators import OPERATORS
from serpent_ir.tasks.resize import Downscale, Rescale

CERTAIN = (GaussianBlur, DefocusBlur, Downscale, Rescale, Jpeg)
"""What does the same to an image each time, its strength being the same. Other blurs draw a kernel, holes a mask."""


@dataclass(frozen=True)
class VaryingStrength:
    """A strength that each image of a batch gets from between two ends: an option of the operator at `place`."""

    place: int
    operator: str
    option: str
    lowest: float
    highest: float
    whole: bool


def repeatable(degradation: Degradation) -> Degradation | None:
    """`degradation` with its chains unfolded; None when it draws more than noise and strengths, so that nobody knows
    what it did to an image: kernels, masks, one of several operators, or whether there is one at all.
    """
    operators = tuple(unfolded(degradation.operators))
    known = all(isinstance(operator, CERTAIN + NOISE) for operator in operators)
    return replace(degradation, operators=operators) if known else None


def unfolded(operators: Iterable[Operator]) -> Iterator[Operator]:
    """The operators with those in the place of a group that are always applied."""
    for operator in operators:
        if isinstance(operator, Chain):
            yield from unfolded(operator.operators)
        elif isinstance(operator, Sometimes) and operator.presence == 1:
            yield from unfolded([operator.operator])
        else:
            yield operator


def varying_strengths(degradation: Degradation) -> list[VaryingStrength]:
    """Those of a `repeatable` degradation, in the order of its operators."""
    names = {kind: name for name, kind in OPERATORS.items()}
    found = []
    for place, operator in enumerate(degradation.operators):
        name = names[type(operator)]
        for option, declared in OPERATORS[name].OPTIONS.items():
            value = getattr(operator, option) if declared.varies else None
            if isinstance(value, tuple):
                found.append(VaryingStrength(place, name, option, value[0], value[1], declared.whole))
    return found


def with_strength(degradation: Degradation, strength: VaryingStrength, value: float) -> Degradation:
    """`degradation` with one of its `varying_strengths` fixed at `value`, which lies between the ends."""
    operators = list(degradation.operators)
    operators[strength.place] = copy.copy(operators[strength.place])
    setattr(operators[strength.place], strength.option, value)
    return replace(degradation, operators=tuple(operators))
