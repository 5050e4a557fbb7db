"""Figures of a profile: cost over resolution, and bars at each size (Figures 1, 6 and 7 of the paper)."""

from __future__ import annotations

from importlib.util import find_spec

from serpent_ir.errors import MissingExtraError

if find_spec("matplotlib") is None:
    raise MissingExtraError(
        "figures need the package 'matplotlib', which is not installed",
        remedy="Install the extra: pip install 'serpent-ir[figures]'.",
    )

from serpent_ir.efficiency.figures.drawing import draw

__all__ = ["draw"]
