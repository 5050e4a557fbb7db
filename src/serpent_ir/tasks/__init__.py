"""What went wrong with the image: degradations, one operator a file, and the registry of named tasks."""

from __future__ import annotations

from serpent_ir.tasks.anisotropic_blur import AnisotropicBlur
from serpent_ir.tasks.defocus_blur import DefocusBlur
from serpent_ir.tasks.degradation import Degradation, Operator
from serpent_ir.tasks.gaussian_blur import GaussianBlur
from serpent_ir.tasks.gaussian_noise import AdditiveGaussianNoise
from serpent_ir.tasks.holes import Holes
from serpent_ir.tasks.jpeg import Jpeg
from serpent_ir.tasks.motion_blur import MotionBlur
from serpent_ir.tasks.options import TaskOption
from serpent_ir.tasks.poisson_noise import PoissonNoise
from serpent_ir.tasks.quantization import quantize
from serpent_ir.tasks.registry import compose, create, list_tasks, task_options
from serpent_ir.tasks.resize import Downscale, Rescale, enlarge
from serpent_ir.tasks.task_file import load_task

__all__ = [
    "AdditiveGaussianNoise",
    "AnisotropicBlur",
    "DefocusBlur",
    "Degradation",
    "Downscale",
    "GaussianBlur",
    "Holes",
    "Jpeg",
    "MotionBlur",
    "Operator",
    "PoissonNoise",
    "Rescale",
    "TaskOption",
    "compose",
    "create",
    "enlarge",
    "list_tasks",
    "load_task",
    "quantize",
    "task_options",
]
