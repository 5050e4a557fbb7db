"""Restoration models: (B, 3, H, W) in [0, 1] to the same shape, at any size; some enlarge it."""

from serpent_ir.models.card import ModelCard, digest_of_hashes, digest_of_model
from serpent_ir.models.checkpoint import load_model, load_with_card, read_card, save_model
from serpent_ir.models.embedded import embedded_weights, find_weights, list_embedded
from serpent_ir.models.registry import create_model, list_models

__all__ = [
    "ModelCard",
    "create_model",
    "digest_of_hashes",
    "digest_of_model",
    "embedded_weights",
    "find_weights",
    "list_embedded",
    "list_models",
    "load_model",
    "load_with_card",
    "read_card",
    "save_model",
]
