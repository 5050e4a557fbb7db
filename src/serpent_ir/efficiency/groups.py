"""Sets of models that are measured together."""

from __future__ import annotations

PAPER = ("serpent-b", "serpent-l", "serpent-h", "unet-32", "unet-128", "swinir-b", "swinir-l", "restormer")
"""Serpent and the systems that the paper compares it with."""

ABLATION = (
    "serpent-b",
    "serpent-b:directions=2",
    "serpent-b:directions=1",
    "serpent-b:patch_size=2",
    "serpent-b:patch_size=1",
    "serpent-b:block=conv",
    "serpent-b:depths_up=[2,2,3]",
    "serpent-b:skip=concat",
)
"""One change to Serpent-B each: directions, patch size, the convolutional twin, a symmetric decoder, wider skips."""

GROUPS: dict[str, tuple[str, ...]] = {"paper": PAPER, "ablation": ABLATION}
"""Name of a group -> the models in it."""


def expand(names: list[str]) -> list[str]:
    """The models that `names` stand for, groups replaced by their members, each model once."""
    return list(dict.fromkeys(model for name in names for model in GROUPS.get(name, (name,))))
