"""The engine: a trained model on one image, a file, or a folder; and the same doors for degrading clean images."""

from __future__ import annotations

from serpent_ir.restoration.degrader import Degrader
from serpent_ir.restoration.fidelity import Fidelity, check_fidelity
from serpent_ir.restoration.restorer import Restorer, restore

__all__ = ["Degrader", "Fidelity", "Restorer", "check_fidelity", "restore"]
