"""Folders of clean photographs -> batches of crops, each a pure function of a seed and a step."""

from __future__ import annotations

from serpent_ir.data.batches import BatchKey, CropBatches
from serpent_ir.data.generated import generated_photographs
from serpent_ir.data.photographs import Photograph, PhotographFolder, load_photographs
from serpent_ir.data.seeding import derived_seed, generator_for

__all__ = [
    "BatchKey",
    "CropBatches",
    "Photograph",
    "PhotographFolder",
    "derived_seed",
    "generated_photographs",
    "generator_for",
    "load_photographs",
]
