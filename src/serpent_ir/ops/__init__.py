"""The heart: the selective scan, for one sequence and for a map read in four directions."""

from serpent_ir.ops.backends import use_backend
from serpent_ir.ops.selective_scan import selective_scan, selective_scan_2d

__all__ = ["selective_scan", "selective_scan_2d", "use_backend"]
