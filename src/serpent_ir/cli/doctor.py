"""`serpent doctor`: what is there, what will run, and why."""

from __future__ import annotations

import typer


def doctor() -> None:
    """Show what this machine has, which backend the scan will run on, and why."""
    import platform

    import torch
    from rich.console import Console
    from rich.table import Table

    from serpent_ir import __version__
    from serpent_ir.errors import SerpentError
    from serpent_ir.models import list_embedded
    from serpent_ir.ops.backends import BACKENDS, choose, why_unavailable
    from serpent_ir.ops.native import has_openmp, instruction_sets

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("serpent-ir", __version__)
    table.add_row("Python", platform.python_version())
    table.add_row("torch", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
    table.add_row("devices", ", ".join(devices))
    threads = "OpenMP" if has_openmp() else "threads of their own (built without OpenMP)"
    table.add_row("compiled kernels", f"{', '.join(instruction_sets())}; {threads}" if instruction_sets() else "none")
    for backend in BACKENDS:
        for device in devices:
            problem = why_unavailable(backend, torch.device(device))
            table.add_row(f"{backend} on {device}", f"not available: {problem}" if problem else "available")
    failed = False
    for device in devices:
        try:
            choice = choose(torch.device(device))
            table.add_row(f"runs on {device}", f"{choice.backend}: {choice.reason}")
        except SerpentError as error:
            failed = True
            table.add_row(f"runs on {device}", f"nothing: {error}")
    weights = ", ".join(f"{task} with {model}" for task, model, _ in list_embedded())
    table.add_row("embedded weights", weights or "none")
    Console().print(table)
    if failed:
        raise typer.Exit(1)
