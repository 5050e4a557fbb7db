"""Photographs, wherever they lie -> batches of crops, each crop a pure function of a seed, a step and its number."""

from __future__ import annotations

from serpent_ir.data.batches import BatchKey, CropBatches
from serpent_ir.data.generated import generated_photographs
from serpent_ir.data.listing import Listing, list_photographs
from serpent_ir.data.load import load_photographs, open_photographs
from serpent_ir.data.loader import crop_loader
from serpent_ir.data.photographs import Photograph, Photographs, content_key
from serpent_ir.data.prepare import Preparation, PreparationReport, prepare_shards
from serpent_ir.data.seeding import derived_seed, generator_for
from serpent_ir.data.source import PhotographSource
from serpent_ir.urls import shown

__all__ = [
    "BatchKey",
    "CropBatches",
    "Listing",
    "Photograph",
    "PhotographSource",
    "Photographs",
    "Preparation",
    "PreparationReport",
    "content_key",
    "crop_loader",
    "derived_seed",
    "generated_photographs",
    "generator_for",
    "list_photographs",
    "load_photographs",
    "open_photographs",
    "prepare_shards",
    "shown",
]
