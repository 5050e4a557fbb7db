"""How well models undo a task on a folder of clean photographs."""

from __future__ import annotations

from serpent_ir.evaluation.contestant import weights_for
from serpent_ir.evaluation.evaluator import Evaluator
from serpent_ir.evaluation.gallery import Gallery
from serpent_ir.evaluation.protocol import Pair, hash_of, make_pair, read_pair
from serpent_ir.evaluation.report import make_folder, write_report
from serpent_ir.evaluation.results import DEGRADED, Evaluation, FailedImage, ImageScores, ModelFacts
from serpent_ir.evaluation.scoring import Scores, Scoring

__all__ = [
    "DEGRADED",
    "Evaluation",
    "Evaluator",
    "FailedImage",
    "Gallery",
    "ImageScores",
    "ModelFacts",
    "Pair",
    "Scores",
    "Scoring",
    "hash_of",
    "make_folder",
    "make_pair",
    "read_pair",
    "weights_for",
    "write_report",
]
