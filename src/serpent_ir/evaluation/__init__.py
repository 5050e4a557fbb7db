"""How well a model undoes a task on a folder of clean photographs."""

from __future__ import annotations

from serpent_ir.evaluation.evaluator import Evaluator
from serpent_ir.evaluation.panel import PanelRow, draw_panel
from serpent_ir.evaluation.protocol import Pair, measure, read_pair
from serpent_ir.evaluation.results import Evaluation, FailedImage, ImageScore, Scores

__all__ = [
    "Evaluation",
    "Evaluator",
    "FailedImage",
    "ImageScore",
    "Pair",
    "PanelRow",
    "Scores",
    "draw_panel",
    "measure",
    "read_pair",
]
