from __future__ import annotations

import importlib
import importlib.util
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from serpent_ir.efficiency.figures import draw
from serpent_ir.efficiency.figures.cells import BYTES, MILLIONS, NUMBER, TIME, Units, written
from serpent_ir.efficiency.figures.drawing import figures
from serpent_ir.efficiency.figures.style import all_looks, own_style
from serpent_ir.errors import FileWriteError, MissingExtraError

PAPER = {  # million parameters, GMAC, seconds and bytes at 256 x 256
    "serpent-b": (3.705, 1.4, 0.35, 0.35e9),
    "serpent-l": (3.705, 5.57, 1.2, 1.0e9),
    "serpent-h": (3.705, 22.24, 4.6, 3.6e9),
    "unet-32": (7.757, 12.16, 0.28, 0.9e9),
    "unet-128": (124.1, 192.8, 2.4, 4.4e9),
    "swinir-b": (3.137, 222.4, 9.0, 12e9),
    "swinir-l": (10.889, 746.9, 22.0, 24e9),
    "restormer": (6.676, 40.48, 4.9, 8.2e9),
}
BASELINE = 300_000_000


def cell(model: str, size: int = 256, mode: str = "inference", status: str = "measured", **changes: Any) -> dict:
    parameters, gmac, seconds, size_in_memory = PAPER[model.partition(":")[0]]
    larger, times = (size / 256) ** 2, 3.2 if mode == "training" else 1.0
    median, peak = seconds * larger * times, int(size_in_memory * larger * times) + BASELINE
    measured = status == "measured"
    return {
        **{"model": model, "height": size, "width": size, "batch": 1, "mode": mode, "precision": "float32"},
        **{"device": "cpu", "parameters": round(parameters * 1e6), "gmac": gmac * larger, "status": status},
        "reason": None,
        "seconds": {"median": median, "lower_quartile": 0.9 * median, "upper_quartile": 1.2 * median, "runs": 5}
        if measured
        else None,
        "images_per_second": 1 / median if measured else None,
        "memory": {"peak": peak, "baseline": BASELINE, "working": peak - BASELINE} if measured else None,
        "scan_backend": None,
        **changes,
    }


def profile(*cells: dict) -> dict[str, Any]:
    machine = {
        "processor": "AMD EPYC",
        "torch_threads": 2,
        "accelerator": "NVIDIA H200",
        "versions": {"torch": "2.6.0"},
    }
    return {"machine": machine, "settings": {"threads": 2, "memory_limit": None}, "cells": list(cells)}


def paper(*sizes: int) -> list[dict]:
    """All systems in both modes; SwinIR does not fit when it is trained at 512 x 512 and above."""
    cells = []
    for model in PAPER:
        for size in sizes:
            beyond = model.startswith("swinir") and size >= 512
            status = "measured" if not beyond else "out of memory" if size == 512 else "not run"
            cells += [cell(model, size), cell(model, size, "training", status)]
    return cells


def drawn(*cells: dict) -> dict[str, Figure]:
    with own_style():
        return dict(figures(profile(*cells)))


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title() == title)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Name of a model -> its points."""
    named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    return {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in named}


def marks(axes: Axes, marker: str) -> list[tuple[float, float, str]]:
    """(size, height, colour) of the lone marks of a kind."""
    found = [line for line in axes.lines if line.get_marker() == marker]
    return [(line.get_xdata()[0], line.get_ydata()[0], to_hex(line.get_color())) for line in found]


def labels(axes: Axes) -> list[tuple[str, float]]:
    """Text and place of the ticks of the vertical axis."""
    return [(label.get_text(), label.get_position()[1]) for label in axes.get_yticklabels()]


def beside(axes: Axes) -> list[str]:
    """What is written next to the bars, from the top."""
    texts = [text for text in axes.texts if isinstance(text, Annotation)]
    return [text.get_text() for text in sorted(texts, key=lambda text: text.xy[1])]


def note(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def test_each_size_and_the_paper_have_their_files() -> None:
    cells = [cell("serpent-b", size) for size in (256, 512, 1024)]
    assert list(drawn(*cells)) == ["figure-1-scaling", "figure-6-bars-256", "figure-7-bars-512", "bars-1024"]
    assert list(drawn(cell("serpent-b", width=384))) == ["bars-256x384"]


def test_devices_precisions_and_batches_are_not_mixed() -> None:
    on_cuda = cell("serpent-b", device="cuda:0", precision="bfloat16", gmac=7.0)
    of_two = cell("serpent-b", batch=2, gmac=8.0)
    found = drawn(cell("serpent-b"), on_cuda, of_two, cell("serpent-l", status="counted"))
    assert list(found) == [
        "figure-6-bars-256-cpu-float32-batch-1",
        "figure-6-bars-256-cuda-0-bfloat16-batch-1",
        "figure-6-bars-256-cpu-float32-batch-2",
    ]
    assert [beside(figure.axes[0]) for figure in found.values()] == [
        ["1.40", "5.57"],
        ["7.00", "5.57"],
        ["8.00", "5.57"],
    ]
    cpu, cuda, two = found.values()
    assert note(cpu).startswith("Measured on cpu (AMD EPYC, 2 threads), float32, batch 1, torch 2.6.0.")
    assert note(cuda).startswith("Measured on cuda:0 (NVIDIA H200; host AMD EPYC, 2 threads), bfloat16, batch 1,")
    assert "batch 2" in note(two)


def test_what_ran_the_scan_is_in_the_note() -> None:
    found = drawn(cell("serpent-b", scan_backend="native"), cell("unet-32"))
    assert note(found["figure-6-bars-256"]).startswith(
        "Measured on cpu (AMD EPYC, 2 threads), float32, batch 1, torch 2.6.0, scan native."
    )


def test_images_of_as_many_pixels_are_different_sizes() -> None:
    wide, high = (
        cell("unet-32", 512),
        {**cell("unet-32", 256), "height": 1024, "memory": {"peak": 7, "baseline": 2, "working": 1}},
    )
    wide["height"], wide["width"], high["width"], high["gmac"] = 256, 1024, 256, 50.0
    figure = drawn(wide, high, cell("unet-32", 1024))["figure-1-scaling"]
    assert lines(figure.axes[0])["U-Net (32)"] == [(512, 12.16 * 4), (512, 50.0), (1024, 12.16 * 16)]
    assert [height for _, height in lines(figure.axes[1])["U-Net (32)"]][:2] == [5, int(0.9e9 * 4)]


def test_what_was_only_counted_says_so() -> None:
    cells = [cell(model, size, status="counted") for model in PAPER for size in (256, 512)]
    found = drawn(*cells)
    assert titles(found["figure-1-scaling"]) == ["Compute"]
    assert titles(found["figure-6-bars-256"]) == ["Compute", "Model size"]
    assert {note(figure) for figure in found.values()} == {"Counted; nothing was run."}


def test_lines_are_the_numbers_of_the_profile() -> None:
    cells = [cell("unet-32", 512, "training"), cell("unet-32", 256, "training"), cell("unet-32", 256)]
    figure = drawn(*cells, cell("unet-32", 1024, status="counted"))["figure-1-scaling"]
    compute, memory = figure.axes
    assert lines(compute) == {"U-Net (32)": [(256, 12.16), (512, 12.16 * 4), (1024, 12.16 * 16)]}
    assert lines(memory) == {"U-Net (32)": [(256, int(0.9e9 * 3.2)), (512, int(0.9e9 * 4 * 3.2))]}
    assert "training step" in memory.get_ylabel()
    assert [label.get_text() for label in compute.get_xticklabels()] == ["256²", "512²", "1024²"]
    bottom, top = memory.get_ylim()
    assert [text for text, place in labels(memory) if bottom <= place <= top] == ["5 GB", "10 GB"]


def test_memory_of_inference_is_drawn_where_nothing_was_trained() -> None:
    figure = drawn(cell("unet-32"), cell("unet-32", 512), cell("unet-32", mode="training", status="failed"))
    memory = panel(figure["figure-1-scaling"], "Memory")
    assert lines(memory) == {"U-Net (32)": [(256, int(0.9e9)), (512, int(0.9e9 * 4))]}
    assert "inference pass" in memory.get_ylabel()


def test_sizes_that_did_not_finish_are_marked_above_all_lines() -> None:
    too_slow = cell("serpent-h", 1024, "training", "over the time limit")
    cells = [other for other in paper(256, 512, 1024) if (other["model"], other["height"]) != ("serpent-h", 1024)]
    figure = drawn(*cells, too_slow)["figure-1-scaling"]
    memory = panel(figure, "Memory")
    looks = all_looks(PAPER)
    crosses, pluses = marks(memory, "x"), marks(memory, "+")
    assert {(size, colour) for size, _, colour in crosses} == {
        (512, looks["swinir-b"].colour),
        (512, looks["swinir-l"].colour),
    }
    assert [(size, colour) for size, _, colour in pluses] == [(1024, looks["serpent-h"].colour)]
    heights = [height for _, height, _ in crosses + pluses]
    assert len({height for _, height, _ in crosses}) == 2, "one lies on the other"
    assert min(heights) > max(height for points in lines(memory).values() for _, height in points)
    assert max(heights) < memory.get_ylim()[1]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [look.name for look in looks.values()] + ["out of memory", "over the time limit"]
    assert not marks(panel(figure, "Compute"), "x")


def test_bars_are_the_numbers_of_the_profile() -> None:
    figure = drawn(*paper(256))["figure-6-bars-256"]
    assert titles(figure) == ["Compute", "Training time", "Model size", "Training memory", "Inference time"]
    expected = {
        "Compute": [gmac for _, gmac, _, _ in PAPER.values()],
        "Training time": [seconds * 3.2 for _, _, seconds, _ in PAPER.values()],
        "Model size": [round(parameters * 1e6) for parameters, _, _, _ in PAPER.values()],
        "Training memory": [int(size * 3.2) for _, _, _, size in PAPER.values()],
        "Inference time": [seconds for _, _, seconds, _ in PAPER.values()],
    }
    for title, values in expected.items():
        axes = panel(figure, title)
        ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
        assert ends == pytest.approx(values, rel=1e-12), title
        assert axes.get_xscale() == ("log" if max(values) > 20 * min(values) else "linear")
        assert ("logarithmic" in axes.get_xlabel()) == (axes.get_xscale() == "log")
        start = axes.get_xlim()[0]
        assert {bar.get_x() for bar in axes.patches} == {start}
        assert start < min(values) and (start > 0) == (axes.get_xscale() == "log")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [look.name for look in all_looks(PAPER).values()]
    assert beside(panel(figure, "Inference time"))[:3] == ["350 ms", "1.20 s", "4.60 s"]
    assert "16.7 h (computed)" in note(figure)


def test_quartiles_are_drawn_on_times() -> None:
    figure = drawn(cell("unet-32"), cell("unet-128"))["figure-6-bars-256"]
    spread = [tuple(line.get_xdata()) for line in panel(figure, "Inference time").lines]
    assert spread == [(0.9 * 0.28, 1.2 * 0.28), (0.9 * 2.4, 1.2 * 2.4)]
    assert not panel(figure, "Compute").lines


def test_the_reason_stands_in_place_of_a_bar() -> None:
    cells = [
        cell("serpent-b", mode="training"),
        cell("serpent-l", mode="training", status="out of memory"),
        cell("serpent-h", mode="training", status="over the time limit"),
        cell("unet-32", mode="training", status="not run"),
        cell("unet-128", mode="training", status="failed"),
        cell("swinir-b", status="counted"),
    ]
    figure = drawn(*cells)["figure-6-bars-256"]
    assert "Inference time" not in titles(figure)
    written_there = ["out of memory", "over the time limit", "not run", "failed", "not measured"]
    assert beside(panel(figure, "Training time")) == ["1.12 s", *written_there]
    assert beside(panel(figure, "Training memory")) == ["1.12 GB", *written_there]
    assert len(panel(figure, "Training time").patches) == 1
    assert len(panel(figure, "Compute").patches) == len(cells)


def test_a_model_has_one_colour_and_a_name_for_people() -> None:
    variants = [f"serpent-b:directions={number}" for number in range(20)]
    models = [*variants[:10], "restormer", "mine", "serpent-b", *variants[10:], "unet-32:skip=add:depth=3"]
    looks = all_looks(models)
    assert list(looks) == ["serpent-b", *variants, "unet-32:skip=add:depth=3", "restormer", "mine"]
    assert looks["unet-32:skip=add:depth=3"].name == "U-Net (32), skip=add, depth=3"
    assert looks["mine"].name == "mine"
    assert len({(look.colour, look.hatch) for look in looks.values()}) == len(models)
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(models)

    found = drawn(*(cell(model, size) for model in ("serpent-h", "serpent-h:a=1") for size in (256, 512)))
    in_lines = [to_hex(line.get_color()) for line in found["figure-1-scaling"].axes[0].lines]
    in_bars = [to_hex(bar.get_facecolor()) for bar in found["figure-7-bars-512"].axes[0].patches]
    assert in_lines == in_bars and len(set(in_bars)) == 2


def all_texts(figure: Figure) -> Iterator[tuple[Text, Any]]:
    """Every text that is seen, and where it is, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    outside = [
        label
        for axes in figure.axes
        for label in axes.get_yticklabels()
        if not min(axes.get_ylim()) <= label.get_position()[1] <= max(axes.get_ylim())
    ]
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text not in outside:
            yield text, text.get_window_extent(canvas.get_renderer())


LONG = ["serpent-b:skip=concat:depths_up=[2,2,3]", "serpent-l:embed_channels=8:directions=2", "serpent-h:expansion=1"]


@pytest.mark.parametrize(
    "cells",
    [
        paper(512, 2048),
        [cell(model, size, status="counted") for model in PAPER for size in (256, 512)],
        [cell(model, size, mode) for model in LONG for size in (256, 512) for mode in ("inference", "training")],
    ],
    ids=["paper", "counted", "long names"],
)
def test_nothing_is_cut_or_runs_into_its_neighbour(cells: list[dict]) -> None:
    with own_style():
        for name, figure in figures(profile(*cells)):
            places = {text: place for text, place in all_texts(figure)}
            whole = figure.bbox
            for text, place in places.items():
                assert whole.x0 <= place.x0 and place.x1 <= whole.x1, (name, text)
                assert whole.y0 <= place.y0 and place.y1 <= whole.y1, (name, text)
            for left, right in zip(figure.axes[:-1], figure.axes[1:], strict=True):
                assert places[left.xaxis.label].x1 < places[right.xaxis.label].x0, name
                for text in (text for text in left.texts if text in places):
                    assert places[text].x1 < right.bbox.x0, (name, text)
            for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
                ticks = [places[label] for label in axis.get_ticklabels() if label in places]
                for index, place in enumerate(ticks):
                    assert place.count_overlaps(ticks[index + 1 :]) == 0, (name, axis)
            for legend in figure.legends:
                boxes = [axes.get_tightbbox() for axes in figure.axes]
                assert legend.get_window_extent().count_overlaps(boxes) == 0, name


@pytest.mark.parametrize(
    ("value", "units", "text"),
    [
        (0.0384, TIME, "38.4 ms"),
        (2e-7, TIME, "0.200 µs"),
        (0.9996, TIME, "1.00 s"),
        (1234.5, TIME, "1230 s"),
        (8.2e9, BYTES, "8.20 GB"),
        (999_600_000, BYTES, "1.00 GB"),
        (3_706_000, MILLIONS, "3.71 M"),
        (250_000, MILLIONS, "0.250 M"),
        (1.4, NUMBER, "1.40"),
        (746.9, NUMBER, "747"),
        (47_800, NUMBER, "47.8 k"),
        (0.03, NUMBER, "0.0300"),
    ],
)
def test_numbers_are_written_with_three_digits(value: float, units: Units, text: str) -> None:
    assert written(value, units) == text


def test_files_are_the_same_bytes_whatever_the_settings_of_matplotlib(tmp_path: Path) -> None:
    one = profile(cell("serpent-b"), cell("serpent-b:directions=1"))
    first = draw(one, tmp_path / "new" / "first")
    assert [path.name for path in first] == ["figure-6-bars-256.png", "figure-6-bars-256.svg"]
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 20}):
        second = draw(one, tmp_path / "second")
        assert matplotlib.rcParams["font.size"] == 30
    for before, after in zip(first, second, strict=True):
        assert before.read_bytes() == after.read_bytes(), before.name
    header = first[0].read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and struct.unpack(">I", header[16:20])[0] == round(200 * 7 * 4 / 6)
    assert first[1].read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in first[0].parent.iterdir()) == sorted(path.name for path in first)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match="file cannot be created"):
        draw(profile(cell("serpent-b")), tmp_path / "file")
    (tmp_path / "figure-6-bars-256.png").mkdir()
    with pytest.raises(FileWriteError, match=r"figure-6-bars-256\.png cannot be written"):
        draw(profile(cell("serpent-b")), tmp_path)


def test_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    monkeypatch.delitem(sys.modules, "serpent_ir.efficiency.figures")
    with pytest.raises(MissingExtraError, match=r"'matplotlib'.*serpent-ir\[figures\]"):
        importlib.import_module("serpent_ir.efficiency.figures")
