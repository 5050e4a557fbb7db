"""What a model costs: parameters, multiply-accumulates, time and memory."""

from serpent_ir.efficiency.cell import Cell, Settings
from serpent_ir.efficiency.cost import count_gmac, count_parameters
from serpent_ir.efficiency.profiler import run_profile
from serpent_ir.efficiency.record import read_profile

__all__ = ["Cell", "Settings", "count_gmac", "count_parameters", "read_profile", "run_profile"]
