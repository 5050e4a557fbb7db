"""The figure of what cpu.py measured: the scan over its floor, over its rivals, and Serpent over the other systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

from serpent_ir.efficiency.figures.cells import NUMBER, TIMES, tick_label
from serpent_ir.efficiency.figures.drawing import DOTS_PER_INCH
from serpent_ir.efficiency.figures.style import GRAY, SYSTEMS, WIDTH, own_style, write_note
from serpent_ir.files import replacing

Record = dict[str, Any]

HEIGHT = 3.0  # inches
SMALL = 6.5  # points
FLOOR, FORWARD, BACKWARD = GRAY, SYSTEMS["serpent-l"].colour, SYSTEMS["unet-128"].colour
KINDS = {"forward": ("forward", FORWARD), "forward_and_backward": ("forward and backward", BACKWARD)}
HALO = [withStroke(linewidth=2.0, foreground="white")]
FILLS = ("white", None)  # of the shorter and of the longer sequence


def draw(parts: dict[str, Record], marks: list[Record], folder: Path) -> Path | None:
    """Write scan.png with a panel for each of the parts `scan`, `sequences` and `models` that is there; gives its path.

    None: there is none of them. marks: as in the result file; those of the scan and of the models are drawn.
    """
    panels = {"scan": draw_scan, "sequences": draw_sequences, "models": draw_models}
    shown = [name for name in panels if name in parts]
    if not shown:
        return None
    path = folder / "scan.png"
    folder.mkdir(parents=True, exist_ok=True)
    with own_style():
        figure = Figure(figsize=(WIDTH * len(shown) / len(panels), HEIGHT), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            panels[name](axes, parts[name], {mark["what"]: mark["limit"] for mark in marks if mark["part"] == name})
        where = "; ".join(dict.fromkeys(origin(parts[name]["machine"]) for name in shown))
        write_note(figure, f"Measured on cpu ({where}), float32. Thin lines: between the quartiles. Black bars: marks.")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
    return path


def origin(machine: Record) -> str:
    return f"{machine['processor']}, {machine['torch_threads']} threads, torch {machine['versions']['torch']}"


def draw_scan(axes: Axes, record: Record, limits: dict[str, float]) -> None:
    """Nanoseconds per state and step at the scales of Serpent-H; a mark is a multiple of the exponential's."""
    scales = record["serpent-h"]
    looks = {"backward": (BACKWARD, "s"), "forward": (FORWARD, "o"), "exp": (FLOOR, "_")}
    for name, (colour, marker) in looks.items():
        times = [scale["seconds"][name] for scale in scales]
        places = [
            [1e9 * time[key] / scale["elements"] for time, scale in zip(times, scales, strict=True)]
            for key in ("median", "lower_quartile", "upper_quartile")
        ]
        label = "torch.exp" if name == "exp" else name
        axes.plot(places[0], color=colour, marker=marker, markersize=4, linewidth=1.0, label=label)
        axes.vlines(range(len(scales)), places[1], places[2], color=colour, linewidth=1.2)
    of_forward = [limit for what, limit in limits.items() if what.startswith("forward")]
    floors = [scale["nanoseconds"]["exp"] for scale in scales]
    for place, (limit, floor) in enumerate(zip(of_forward, floors, strict=False)):
        axes.hlines(limit * floor, place - 0.25, place + 0.25, color="black", linewidth=1.6)
    shapes = [scale["map"] for scale in scales]
    axes.set_xticks(range(len(scales)), [f"{m['size']}²\nD {m['channels']}\nN {m['states']}" for m in shapes])
    axes.set(title="The scan of Serpent-H, 256²", ylabel="ns per state and step", ylim=(0, None))
    axes.margins(x=0.12)
    axes.grid(True, axis="y")
    axes.legend(frameon=False, fontsize=SMALL)


def draw_sequences(axes: Axes, record: Record, limits: dict[str, float]) -> None:
    """How many times as long as the native scan others take, forward, and forward and backward."""
    lengths = record["lengths"]
    names = list(next(iter(lengths.values()))["factors"])
    for (length, systems), fill in zip(lengths.items(), FILLS, strict=True):
        for kind, (label, colour) in KINDS.items():
            rows = [row for row, name in enumerate(names) if kind in systems["factors"][name]]
            factors = [systems["factors"][names[row]][kind] for row in rows]
            shift = -0.14 if kind == "forward" else 0.14
            axes.plot(
                factors,
                [row + shift for row in rows],
                color=colour,
                marker="o" if kind == "forward" else "s",
                markerfacecolor=fill or colour,
                markersize=4,
                linestyle="",
                label=f"{label}, L = {length}",
            )
    axes.set_yticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    axes.set_ylim(len(names) + 1.2, -0.6)  # the legend has the room below
    logarithmic(axes, f"time over the native scan's, D = {record['channels']}, N = {record['states']}")
    axes.set_title("A sequence in torch")
    axes.legend(frameon=False, fontsize=SMALL, loc="lower right")


def draw_models(axes: Axes, record: Record, limits: dict[str, float]) -> None:
    """How many times as long as Serpent the other systems take."""
    for row, (what, ratio) in enumerate(record["ratios"].items()):
        other = what.partition(" / ")[0].removesuffix(" training")
        axes.barh(row, ratio["median"] - 1, left=1, height=0.6, color=SYSTEMS[other].colour)
        lower, upper = ratio["lower_quartile"], ratio["upper_quartile"]
        axes.plot([lower, upper], [row, row], color="black", linewidth=0.8, path_effects=HALO)
        if what in limits:
            axes.vlines(limits[what], row - 0.4, row + 0.4, color="black", linewidth=1.6)
        place: dict[str, Any] = {
            "xytext": (3, 0),
            "textcoords": "offset points",
            "verticalalignment": "center_baseline",
        }
        axes.annotate(f"{ratio['median']:.1f}", (upper, row), fontsize=SMALL, path_effects=HALO, **place)
    axes.set_yticks(range(len(record["ratios"])), [model_label(what) for what in record["ratios"]])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.tick_params(axis="y", length=0)
    logarithmic(axes, "time over Serpent's")
    axes.set_title(f"Models, {record['size']}²")


def model_label(what: str) -> str:
    """'unet-32 training / serpent-b training' -> two lines, as models are called."""
    other, ours = (name.removesuffix(" training") for name in what.split(" / "))
    over = f"{SYSTEMS[other].name}\nover {SYSTEMS[ours].name}"
    return f"{over},\ntraining" if "training" in what else over


def logarithmic(axes: Axes, label: str) -> None:
    axes.set(xscale="log", xlabel=label)
    axes.set_xlim(left=min(1.0, *axes.get_xlim()))
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick_label(tick, NUMBER)}{TIMES}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="x")
