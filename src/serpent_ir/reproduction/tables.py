"""The tables that can be made anew, as data: which recipe makes each row, and what was published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from serpent_ir.errors import UnknownNameError

Published = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One trained model.

    name: of the row's folder and on the command line, unique in its table. label: in the table. group: the heading
    under which rows are compared; they have the same task and size. recipe: name of a bundled one. changes: fields of
    it with other values. published: figures to stand beside ours, by the names `psnr` (dB), `ssim`, `lpips`, `gmac`.
    accelerator: takes hours on a CPU, and is left out there unless asked for by name.
    """

    name: str
    label: str
    group: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    published: Published = field(default_factory=dict)
    accelerator: bool = False


@dataclass(frozen=True)
class Table:
    """title: for people. data: `ffhq`, FFHQ in its published layout; or `folders`, any photographs. source: who
    published the figures beside ours; without one, rows are compared with the first of their group."""

    title: str
    data: Literal["ffhq", "folders"]
    rows: tuple[Row, ...]
    source: str = ""


def _figures(psnr: float, ssim: float, lpips: float, gmac: float | None = None) -> Published:
    figures = {"psnr": psnr, "ssim": ssim, "lpips": lpips}
    return figures if gmac is None else {**figures, "gmac": gmac}


def _paper(group: str, prefix: str, models: dict[str, tuple[str, Published]]) -> tuple[Row, ...]:
    """Rows whose recipes are named prefix-model."""
    return tuple(
        Row(f"{prefix}-{model}", label, group, f"{prefix}-{model}", published=published)
        for model, (label, published) in models.items()
    )


DEBLUR_256 = _paper(
    "Gaussian deblurring, 256²",
    "deblur-256",
    {
        "restormer": ("Restormer", _figures(28.75, 0.8143, 0.2931, 40.5)),
        "swinir-l": ("SwinIR-L", _figures(28.74, 0.8137, 0.2938, 746.9)),
        "unet-32": ("U-Net(32)", _figures(28.32, 0.8013, 0.3040, 12.2)),
        "unet-128": ("U-Net(128)", _figures(28.51, 0.8078, 0.2955, 192.8)),
        "serpent-b": ("Serpent-B", _figures(28.44, 0.8054, 0.3041, 1.4)),
        "serpent-l": ("Serpent-L", _figures(28.64, 0.8116, 0.2950, 5.6)),
        "serpent-h": ("Serpent-H", _figures(28.77, 0.8149, 0.2911, 22.2)),
    },
)

DEBLUR_512 = _paper(
    "Gaussian deblurring, 512²",
    "deblur-512",
    {
        "restormer": ("Restormer", _figures(28.51, 0.7797, 0.4136, 161.9)),
        "swinir-b": ("SwinIR-B", _figures(28.37, 0.7756, 0.4214, 889.5)),
        "unet-32": ("U-Net(32)", _figures(28.23, 0.7710, 0.4162, 48.6)),
        "unet-128": ("U-Net(128)", _figures(28.35, 0.7751, 0.4138, 771.1)),
        "serpent-b": ("Serpent-B", {}),  # the paper's figures for these two are not at hand
        "serpent-l": ("Serpent-L", {}),
    },
)

SR8_512 = _paper(
    "8x super-resolution, 512²",
    "sr8-512",
    {
        "restormer": ("Restormer", _figures(29.20, 0.7984, 0.3809)),
        "unet-128": ("U-Net(128)", _figures(28.95, 0.7925, 0.3827)),
        "serpent-b": ("Serpent-B", _figures(29.03, 0.7940, 0.3871)),
        "serpent-l": ("Serpent-L", _figures(29.16, 0.7973, 0.3815)),
        "serpent-h": ("Serpent-H", _figures(29.23, 0.7988, 0.3800)),
    },
)

DENOISE = tuple(
    Row(
        f"denoise-{sigma}",
        "Serpent-L",
        f"colour denoising, sigma {sigma}",
        f"denoise-{sigma}-serpent-l",
        {},
        {"psnr": psnr},
    )
    for sigma, psnr in ((15, 33.89), (25, 31.23), (50, 27.92))
)

# Rates of Serpent, its twin and U-Net(32): tried on held-out training photographs (docs/results.md). Others: published.
SERPENT = {"model": "serpent-b", "lr": 6e-3}
TWIN = {**SERPENT, "model_options": {"block": "conv"}}

EQUAL = tuple(
    Row(f"{task}-{name}", label, group, "equal-budget", {"task": task, **changes}, {}, accelerator)
    for task, group in (("deblur", "Gaussian deblurring"), ("sr8", "8x super-resolution"))
    for name, label, changes, accelerator in (
        ("serpent-b", "Serpent-B", SERPENT, False),
        ("unet-32", "U-Net(32)", {"model": "unet-32", "lr": 2e-3}, False),
        ("twin", "Serpent-B, convolutions in place of scans", TWIN, False),
        ("serpent-l", "Serpent-L", {**SERPENT, "model": "serpent-l"}, True),
        ("serpent-h", "Serpent-H", {**SERPENT, "model": "serpent-h"}, True),
        ("unet-128", "U-Net(128)", {"model": "unet-128", "lr": 5e-4}, True),
        ("swinir-b", "SwinIR-B", {"model": "swinir-b", "lr": 1e-3}, True),
        ("swinir-l", "SwinIR-L", {"model": "swinir-l", "lr": 1e-3}, True),
        ("restormer", "Restormer", {"model": "restormer", "lr": 3e-4}, True),
    )
)

ABLATION = tuple(
    Row(name, label, "Gaussian deblurring", "equal-budget", {**SERPENT, "model_options": options})
    for name, label, options in (
        ("serpent-b", "Serpent-B: 4 directions, patches of 4 x 4", {}),
        ("directions-2", "2 directions", {"directions": 2}),
        ("directions-1", "1 direction", {"directions": 1}),
        ("patch-2", "patches of 2 x 2 (Serpent-L)", {"patch_size": 2}),
        ("patch-1", "patches of one pixel (Serpent-H)", {"patch_size": 1}),
        ("twin", "convolutions in place of scans", {"block": "conv"}),
    )
)

TABLES: dict[str, Table] = {
    "table1": Table("Table 1 of the paper: Gaussian deblurring on FFHQ", "ffhq", DEBLUR_256 + DEBLUR_512, "paper"),
    "table2": Table("Table 2 of the paper: 8x super-resolution on FFHQ", "ffhq", SR8_512, "paper"),
    "denoise": Table("Colour denoising, as CDnCNN was trained", "folders", DENOISE, "CDnCNN"),
    "equal": Table("Equal training time for every model", "folders", EQUAL),
    "ablation": Table("What the parts of Serpent-B are worth, in equal training time", "folders", ABLATION),
}


def find_table(name: str) -> Table:
    """Raises UnknownNameError when there is no such table."""
    if name not in TABLES:
        raise UnknownNameError(f"table {name!r}", f"one of {', '.join(TABLES)}")
    return TABLES[name]


def choose_rows(table: Table, only: Iterable[str], accelerator: bool) -> tuple[Row, ...]:
    """The rows named in `only`, in the table's order; without names all, but for those that need an accelerator when
    there is none. Raises UnknownNameError, which lists the rows, for a name that is none."""
    wanted, names = set(only), [row.name for row in table.rows]
    unknown = sorted(wanted - set(names))
    if unknown:
        raise UnknownNameError(f"row {unknown[0]!r}", f"one of {', '.join(names)}")
    if wanted:
        return tuple(row for row in table.rows if row.name in wanted)
    return tuple(row for row in table.rows if accelerator or not row.accelerator)
