"""From a profile to the files of its figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from serpent_ir.efficiency.cell import Status
from serpent_ir.efficiency.figures.bars import bars_figure
from serpent_ir.efficiency.figures.cells import Cell, resolution
from serpent_ir.efficiency.figures.lines import scaling_figure
from serpent_ir.efficiency.figures.style import all_looks, own_style
from serpent_ir.errors import FileWriteError
from serpent_ir.files import replacing

DOTS_PER_INCH = 200


def draw(profile: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what `serpent profile` measured; gives the files written, each figure as PNG (200 dpi) and SVG.

    profile: the content of the JSON file. folder: created when missing; files of the same names are replaced.
    `figure-1-scaling` (two sizes or more), `figure-6-bars-256`, `figure-7-bars-512`, and `bars-SIZE` for other sizes;
    with `-DEVICE-PRECISION-batch-BATCH` at the end when the profile holds several of these. The same profile gives
    the same bytes with the same version of matplotlib.

    Raises FileWriteError when the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"folder {folder} cannot be created ({error.strerror})") from error
    paths = []
    with own_style():
        for name, figure in figures(profile):
            for kind, metadata in (("png", {}), ("svg", {"Date": None})):
                path = folder / f"{name}.{kind}"
                try:
                    with replacing(path) as temporary:
                        figure.savefig(temporary, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
                except OSError as error:
                    raise FileWriteError(f"{path} cannot be written ({error.strerror})") from error
                paths.append(path)
    return paths


def figures(profile: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """(file name without suffix, figure) for everything that `draw` writes."""
    cells: list[Cell] = profile["cells"]
    looks = all_looks(cell["model"] for cell in cells)
    sets = comparable_sets(cells)
    for (device, precision, batch), members in sets.items():
        suffix = f"-{device.replace(':', '-')}-{precision}-batch-{batch}" if len(sets) > 1 else ""
        if len({resolution(cell) for cell in members}) > 1:
            yield f"figure-1-scaling{suffix}", scaling_figure(members, looks, origin(profile, members))
        for height, width in sorted({(cell["height"], cell["width"]) for cell in members}):
            at_size = [cell for cell in members if (cell["height"], cell["width"]) == (height, width)]
            size = str(height) if height == width else f"{height}x{width}"
            number = {"256": "figure-6-", "512": "figure-7-"}.get(size, "")
            yield f"{number}bars-{size}{suffix}", bars_figure(at_size, looks, origin(profile, at_size))


def comparable_sets(cells: list[Cell]) -> dict[tuple[str, str, int], list[Cell]]:
    """Cells by (device, precision, batch). Cells that were only counted belong to no machine: they come first in each
    set, and are a set of their own only where nothing was run."""
    counted = [cell for cell in cells if cell["status"] == Status.COUNTED]
    sets: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        if cell["status"] != Status.COUNTED:
            sets.setdefault((cell["device"], cell["precision"], cell["batch"]), list(counted)).append(cell)
    if counted and not sets:
        sets["none", "none", 1] = counted
    return sets


def origin(profile: dict[str, Any], cells: list[Cell]) -> str:
    """Where the numbers of cells of one set come from."""
    cell = cells[-1]
    if cell["status"] == Status.COUNTED:
        return "Counted; nothing was run."
    machine = profile["machine"]
    threads = machine["torch_threads"]
    where = f"{machine['processor']}, {threads} thread{'s' if threads > 1 else ''}"
    if cell["device"].startswith("cuda"):
        where = f"{machine['accelerator']}; host {where}"
    torch = machine["versions"]["torch"]
    scan = "".join(f", scan {backend}" for backend in sorted({cell["scan_backend"] or "" for cell in cells} - {""}))
    return f"Measured on {cell['device']} ({where}), {cell['precision']}, batch {cell['batch']}, torch {torch}{scan}."
