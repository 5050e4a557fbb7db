"""What went wrong with the image: degradations, one operator a file, and the registry of named tasks."""

from __future__ import annotations

from serpent_ir.tasks.degradation import Degradation, Operator
from serpent_ir.tasks.gaussian_blur import GaussianBlur
from serpent_ir.tasks.gaussian_noise import AdditiveGaussianNoise
from serpent_ir.tasks.options import TaskOption
from serpent_ir.tasks.quantization import quantize
from serpent_ir.tasks.registry import create, list_tasks, task_options

__all__ = [
    "AdditiveGaussianNoise",
    "Degradation",
    "GaussianBlur",
    "Operator",
    "TaskOption",
    "create",
    "list_tasks",
    "quantize",
    "task_options",
]
