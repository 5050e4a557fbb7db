"""A list of operators as data, as it stands in a recipe or a task file -> operators.

Each entry is one of

    {operator: NAME, OPTION: VALUE, ...}    an operator of `OPERATORS` with its options, of which any may be left out
    {one_of: [ENTRY, ...]}                  one of them for each image, all equally likely
    {chain: [ENTRY, ...]}                   one after the other: several operators as one entry

and may have `presence: P`, the probability with which an image meets it at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serpent_ir.errors import RangeError, UnknownNameError
from serpent_ir.tasks.anisotropic_blur import AnisotropicBlur
from serpent_ir.tasks.chain import Chain, OneOf, Sometimes
from serpent_ir.tasks.defocus_blur import DefocusBlur
from serpent_ir.tasks.degradation import Operator
from serpent_ir.tasks.gaussian_blur import GaussianBlur
from serpent_ir.tasks.gaussian_noise import AdditiveGaussianNoise
from serpent_ir.tasks.holes import Holes
from serpent_ir.tasks.jpeg import Jpeg
from serpent_ir.tasks.motion_blur import MotionBlur
from serpent_ir.tasks.options import TaskOption, resolve_options
from serpent_ir.tasks.poisson_noise import PoissonNoise
from serpent_ir.tasks.resize import Downscale, Rescale

OPERATORS: dict[str, type[Any]] = {
    "gaussian_blur": GaussianBlur,
    "anisotropic_blur": AnisotropicBlur,
    "defocus_blur": DefocusBlur,
    "motion_blur": MotionBlur,
    "downscale": Downscale,
    "rescale": Rescale,
    "gaussian_noise": AdditiveGaussianNoise,
    "poisson_noise": PoissonNoise,
    "jpeg": Jpeg,
    "holes": Holes,
}
"""Name -> class; its OPTIONS declare what it is made with."""

RESHAPING = (Downscale, Holes)
"""What changes the form of a batch, and therefore must happen to all its images."""

PRESENCE = TaskOption(1.0, 0.0, 1.0, "probability that an image meets it")
DEEPEST = 20
"""So many groups may lie in one another."""
GROUPS: dict[str, type[Chain] | type[OneOf]] = {"one_of": OneOf, "chain": Chain}


def parse_operators(entries: Any, place: str, depth: int = 0) -> tuple[Operator, ...]:
    """The operators of a list of entries, in order. `place` says where the list stands, "task 'mine'".

    depth: how many groups the list lies in. Raises UnknownNameError for a name or option that does not exist,
    RangeError for a value that cannot be, or groups in one another more than 20 deep; both say at which entry.
    """
    if depth > DEEPEST:
        raise RangeError(f"{place.partition(',')[0]}: groups of operators lie more than {DEEPEST} deep", "fewer")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise RangeError(f"{place}: operators {entries!r}", "a list of at least one operator")
    return tuple(parse_operator(entry, f"{place}, operator {number}", depth) for number, entry in enumerate(entries, 1))


def parse_operator(entry: Any, place: str, depth: int) -> Operator:
    kinds = [kind for kind in ("operator", *GROUPS) if isinstance(entry, Mapping) and kind in entry]
    if len(kinds) != 1:
        raise RangeError(f"{place}: {entry!r}", "a mapping with one of the keys operator, one_of, chain")
    kind = kinds[0]
    options = {key: value for key, value in entry.items() if key not in (kind, "presence")}
    if kind in GROUPS:
        resolve_options(f"{place} ({kind})", {"presence": PRESENCE}, options)
        operator: Operator = GROUPS[kind](parse_operators(entry[kind], f"{place} ({kind})", depth + 1))
        for inner in leaves(operator):
            if isinstance(inner, RESHAPING):
                raise RangeError(f"{place} ({kind}) holds downscale or holes", "these in the outermost list only")
    else:
        name = entry["operator"]
        if not isinstance(name, str) or name not in OPERATORS:
            raise UnknownNameError(f"{place}: unknown operator {name!r}", f"one of {', '.join(OPERATORS)}")
        made_of = OPERATORS[name]
        resolved = resolve_options(f"{place} ({name})", made_of.OPTIONS, options)
        try:
            operator = made_of(**resolved)
        except RangeError as error:
            raise RangeError(f"{place}: {error.came}", error.expected) from None
    if "presence" not in entry:
        return operator
    if isinstance(operator, RESHAPING):
        raise RangeError(f"{place} ({name}) has a presence", "none: it changes the form of the whole batch")
    return Sometimes(operator, PRESENCE.number(f"{place}: presence", entry["presence"]))


def leaves(operator: Operator) -> Iterator[Operator]:
    """The operators that `operator` is made of, itself when it is of one piece."""
    if isinstance(operator, Sometimes):
        yield from leaves(operator.operator)
    elif isinstance(operator, Chain | OneOf):
        for inner in operator.operators:
            yield from leaves(inner)
    else:
        yield operator
