"""`serpent models`: the models, their size and cost, and the weights that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

LONG = 20
"""A list of more values is shown by the first two of them."""


def in_short(value: object) -> str:
    if isinstance(value, list) and len(value) > LONG:
        return f"{json.dumps(value[:2])[:-1]}, ...] ({len(value)} in all)"
    return json.dumps(value)


def models(
    weights: Annotated[Path | None, typer.Argument(help="Describe this weights file instead.")] = None,
) -> None:
    """List the models with their size, cost and embedded weights, or describe a weights file."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from serpent_ir.efficiency import count_gmac, count_parameters
    from serpent_ir.models import create_model, list_embedded, list_models, read_card

    console = Console()
    if weights is not None:
        card = read_card(weights)
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        table.add_row("model", card.model)
        table.add_row("task", card.task or "not said")
        table.add_row("parameters", f"{card.parameters:,} stored as {card.dtype}")
        table.add_row("config", json.dumps(card.config))
        for name, value in card.provenance.items():
            table.add_row(name, value if isinstance(value, str) else in_short(value))
        console.print(table)
        return
    table = Table("model", "parameters", "GMAC at 256 x 256", "embedded weights for", box=None, padding=(0, 2, 0, 0))
    tasks = [(task, model) for task, model, _ in list_embedded()]
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        row = [f"{count_parameters(model) / 1e6:.3f} M", f"{count_gmac(model, 256, 256):.2f}"]
        table.add_row(name, *row, ", ".join(task for task, of in tasks if of == name) or "-")
    console.print(table)
