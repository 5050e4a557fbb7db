"""How models and figures look."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

WIDTH = 7.0  # inches: both columns of a journal's page
GRAY = "0.35"
LONGEST_NAME = 26  # letters on a line

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "figure.titleweight": "bold",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.07,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "serpent-ir",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Look:
    """How a model is called and drawn. colour: "#rrggbb"; marker and hatch: matplotlib's letters."""

    name: str
    colour: str
    marker: str
    hatch: str = ""


SYSTEMS = {
    "serpent-b": Look("Serpent-B", "#6bb3e8", "o"),
    "serpent-l": Look("Serpent-L", "#1f78c8", "s"),
    "serpent-h": Look("Serpent-H", "#082a54", "D"),
    "unet-32": Look("U-Net (32)", "#f2b134", "^"),
    "unet-128": Look("U-Net (128)", "#c05a00", "v"),
    "swinir-b": Look("SwinIR-B", "#e29cc6", "<"),
    "swinir-l": Look("SwinIR-L", "#b8308a", ">"),
    "restormer": Look("Restormer", "#555555", "P"),
}
FURTHER_COLOURS = ("#8c8c8c", "#44aa99", "#999933", "#882255", "#6e4b2a", "#7a6fd0")
FURTHER_HATCHES = ("////", "....", "xxxx", "----")
FURTHER_MARKERS = ("X", "h", "p", "*", "d", "8", "H")


@contextmanager
def own_style() -> Iterator[None]:
    """Within the block, matplotlib draws in the style of this file, whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def all_looks(models: Iterable[str]) -> dict[str, Look]:
    """The look of every model, in the order in which they are drawn: a system, then its variants, then what is left."""
    order = list(SYSTEMS)
    names = dict.fromkeys(models)
    looks = {model: SYSTEMS[model] for model in names if model in SYSTEMS}
    for index, model in enumerate(model for model in names if model not in SYSTEMS):
        base, *overrides = model.split(":")
        turn, place = divmod(index, len(FURTHER_COLOURS))
        looks[model] = Look(
            ", ".join([SYSTEMS[base].name if base in SYSTEMS else base, *overrides]),
            FURTHER_COLOURS[place],
            FURTHER_MARKERS[index % len(FURTHER_MARKERS)],
            FURTHER_HATCHES[turn % len(FURTHER_HATCHES)],
        )

    def rank(model: str) -> tuple[int, bool]:
        base = model.partition(":")[0]
        return (order.index(base) if base in order else len(order)), model not in SYSTEMS

    return {model: looks[model] for model in sorted(looks, key=rank)}


def write_note(figure: Figure, note: str) -> None:
    """The line under a figure, wrapped at its width."""
    letters = int(figure.get_figwidth() * 20)
    figure.supxlabel(textwrap.fill(note, letters), x=0.01, horizontalalignment="left", fontsize=6, color=GRAY)
