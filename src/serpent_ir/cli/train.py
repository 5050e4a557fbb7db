"""`serpent train`: train a model as a recipe says."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Option(help="Recipe: a YAML file, or the name of one that comes along, such as deblur-b.")
    ] = None,
) -> None:
    """Train a model as a recipe says; run the same command again to continue after a stop.

    Every field of the recipe can be overridden: --data DIR (may be repeated; DIR:1.35-2 scales crops down by a
    random factor of that range), --val DIR, --run DIR, --steps 2000, --lr 5e-4, --time_budget 45m,
    --model_options.patch_size 2, and so on. The fields are described in serpent_ir.training.Recipe.
    """
    import logging
    import signal

    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("serpent_ir").setLevel(logging.INFO)

    from serpent_ir.recipes import find_recipe
    from serpent_ir.training import load_recipe
    from serpent_ir.training import train as run_training

    result = run_training(load_recipe(None if config is None else find_recipe(config), context.args))
    quality = "" if result.val_psnr is None else f", validation {result.val_psnr:.2f} dB"
    if result.finished:
        typer.echo(f"{result.weights}: {result.step} steps{quality}")
        return
    typer.echo(f"stopped after step {result.step}{quality}; the same command continues")
    if result.interrupted_by is not None:
        raise typer.Exit(128 + signal.Signals(result.interrupted_by))
