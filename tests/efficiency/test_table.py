from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from serpent_ir.efficiency.cell import Cell
from serpent_ir.efficiency.record import Result
from serpent_ir.efficiency.table import cell_text, gmac_text, outcome_text, report, result_line, three_digits

MACHINE = {"processor": "Abacus 9", "torch_threads": 2, "accelerator": "Loom"}


def result(size: int = 256, seconds: float | None = None, status: str = "measured", **fields: Any) -> Result:
    cell_fields = {name: fields.pop(name) for name in list(fields) if name in Cell.__dataclass_fields__}
    times = None
    if seconds is not None:
        times = {"median": seconds, "lower_quartile": 0.9 * seconds, "upper_quartile": 1.25 * seconds, "runs": 3}
        fields["memory"] = {"peak": 2_345_678_901, "baseline": 345_678_901, "working": 12_345_678}
    cell = Cell(**{"model": "serpent-b", "height": size, "width": size, **cell_fields})
    return Result(cell, 3_707_920, size**2 * 1.4 / 256**2, status, seconds=times, **fields)


def printed(results: list[Result], width: int = 120) -> list[str]:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        for part in report(MACHINE, results):
            console.print(part)
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


def test_costs_as_they_are_published() -> None:
    shown = [gmac_text(gmac) for gmac in (222.41, 12.158, 40.482, 1.4023, 99.994, 1423.36)]
    assert shown == ["222.4", "12.16", "40.48", "1.40", "99.99", "1423.4"]


def test_numbers() -> None:
    assert [three_digits(value) for value in (1234.5, 100, 12.34, 1.234, 0.1234, 0.001234)] == [
        "1234", "100", "12.3", "1.23", "0.123", "0.0012"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (result(seconds=0.08), "80.0 ms (72.0-100)"),
        (result(seconds=2.0), "2.00 s (1.80-2.50)"),
        (result(seconds=4e-6), "4.00 µs (3.60-5.00)"),
        (result(seconds=4e-8), "0.0400 µs (0.0360-0.0500)"),
        (result(status="out of memory", reason="RuntimeError: you tried to allocate 80 GB"), "out of memory"),
        (result(status="not run", reason="did not fit at 64x64"), "not run: did not fit at 64x64"),
        (result(status="failed", reason="ValueError: no"), "failed: ValueError: no"),
        (result(status="counted"), "counted"),
    ],
)
def test_outcomes(given: Result, text: str) -> None:
    assert outcome_text(given) == text
    assert result_line(given) == f"serpent-b, 256x256, inference, float32, cpu, batch 1: {text}"


def test_a_table_for_each_set_of_conditions() -> None:
    lines = printed(
        [
            result(256, 0.08),
            result(512, status="out of memory", mode="training"),
            result(512, status="over the time limit"),
            result(256, 0.01, device="cuda:1"),
        ]
    )
    row = "serpent-b 256x256 3.708 1.40 80.0 ms (72.0-100) 12.5 2.00 0.0123"
    assert lines[0] == "inference, float32, batch 1, Abacus 9 with 2 threads"
    assert lines[3:5] == [row, "serpent-b 512x512 3.708 5.60 over the time limit"]
    assert lines[5] == "training, float32, batch 1, Abacus 9 with 2 threads"
    assert "serpent-b 512x512 3.708 5.60 out of memory" in lines
    assert "inference, float32, batch 1, Loom (cuda:1)" in lines


def test_reasons_stand_below() -> None:
    lines = printed(
        [
            result(256, status="failed", reason="ValueError: no"),
            result(512, status="out of memory", reason="MemoryError"),
            result(1024, 0.08, reason="timing ended early"),
        ]
    )
    assert lines[6:] == [
        "serpent-b 256x256: failed: ValueError: no",
        "serpent-b 1024x1024: measured: timing ended early",
    ]


def test_what_ran_the_scan_stands_below() -> None:
    backends = ("native", None, "native")
    lines = printed([result(size, 0.08, scan_backend=name) for size, name in zip((16, 32, 32), backends, strict=True)])
    assert lines[6:7] == ["scan: native"] and sum("scan" in line for line in lines) == 1


def test_growth_is_shown_where_it_is_known() -> None:
    lines = printed([result(size, 1e-6 * size**2) for size in (64, 128, 256)])
    assert lines[-1] == "serpent-b 1.00 ± 0.00 (3) 0.00 ± 0.00 (3)"
    assert not any("growth" in line for line in printed([result(size, 1.0) for size in (64, 128)]))


def test_what_was_only_counted_has_no_empty_columns() -> None:
    assert printed([result(status="counted")])[1:] == ["params", "model size (M) GMAC", "serpent-b 256x256 3.708 1.40"]


def test_narrow_terminals_lose_nothing() -> None:
    """In 80 columns long names are folded, and no number is cut."""
    lines = printed([result(2048, 0.08, model="serpent-b:directions=1:depths_up=[2,2,3]")], width=80)
    assert lines[3].endswith(" 2048x2048 3.708 89.60 80.0 ms (72.0-100) 12.5 2.00 0.0123")
    assert "".join(line.split()[0] for line in lines[3:]) == "serpent-b:directions=1:depths_up=[2,2,3]"


def test_names_are_not_read_as_markup() -> None:
    assert "serpent-b:depths_up=[2,2,3]" in printed([result(status="counted", model="serpent-b:depths_up=[2,2,3]")])[3]


def test_a_cell_in_a_line() -> None:
    assert cell_text(Cell("unet-32", 512, 768, 4, "training", "bfloat16", "cuda:1")) == (
        "unet-32, 512x768, training, bfloat16, cuda:1, batch 4"
    )
