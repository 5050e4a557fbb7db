"""What a model costs: parameters and multiply-accumulates."""

from serpent_ir.efficiency.cost import count_gmac, count_parameters

__all__ = ["count_gmac", "count_parameters"]
