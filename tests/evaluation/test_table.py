from __future__ import annotations

import csv
import io

from rich.console import Console
from stand_ins_of_evaluation import evaluation, scores

from serpent_ir.evaluation import ImageScores
from serpent_ir.evaluation.notes import score_lines, training_lines
from serpent_ir.evaluation.scoring import METRICS
from serpent_ir.evaluation.table import (
    csv_of_images,
    image_table,
    latex,
    markdown,
    mean_table,
    ranks,
    rich_table,
    tables,
)

PSNR, _, LPIPS = METRICS


def test_best_and_second_by_the_digits_that_are_shown() -> None:
    assert ranks({"a": 25.0, "b": 26.0, "c": 24.0}, PSNR) == {"b": 1, "a": 2}
    assert ranks({"a": 0.3, "b": 0.1, "c": 0.2}, LPIPS) == {"b": 1, "c": 2}
    assert ranks({"a": 25.001, "b": 25.002, "c": 24.0}, PSNR) == {"a": 1, "b": 1, "c": 2}
    assert ranks({"a": 25.0}, PSNR) == {}


def test_the_degraded_input_is_a_row_and_takes_no_part_in_the_ranking() -> None:
    better_input = [ImageScores("a.png", 20, 30, "00ff", scores(30.0, 25.0, 26.0))]
    rows = mean_table(evaluation(images=tuple(better_input))).rows
    assert [(row[0].text, row[1].text, row[1].rank) for row in rows] == [
        ("degraded", "30.00", 0),
        ("serpent-b", "25.00", 2),
        ("other_one (trained for denoise)", "26.00", 1),
    ]
    assert all(row[1].detail == "" for row in rows), "a single image has no interval"


def test_markdown() -> None:
    lines = markdown(evaluation(lpips="version 0.1")).splitlines()
    assert "|  | PSNR dB ↑ | SSIM ↑ | LPIPS ↓ |" in lines
    expected = r"| other\_one (trained for denoise) | **25.25** \[24.50, 26.00\] | **0.7500** \[0.7500, 0.7500\] |"
    assert any(line.startswith(expected) for line in lines)
    assert r"| serpent-b | <u>24.50</u> \[24.00, 25.00\] |" in "".join(lines)
    assert any(r"+0.75 \[+0.50, +1.00\], wins 100 %" in line for line in lines)
    assert r"- **WARNING: other\_one was trained on 1 of 2 evaluated images: b/c \<1\>.png**" in lines


def test_latex_is_balanced_and_escaped() -> None:
    text = latex(evaluation())
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\bottomrule") == 2
    rows = [line for line in text.splitlines() if line.startswith("other")]
    assert rows[0].startswith(r"other\_one (trained for denoise) & \textbf{25.25} {\scriptsize [24.50, 26.00]} & ")
    assert rows[1].endswith(r"wins 0 \%} \\") and r"\underline{24.50}" in text
    assert all(line.count("{") == line.count("}") for line in rows)
    assert all(line.startswith("%") for line in text.splitlines() if "WARNING" in line)


def test_terminal_names_are_not_markup_and_fit_into_80_columns() -> None:
    found = evaluation(lpips="version 0.1", folder="photo [red] \x1b[31m")
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    for table in [*tables(found), image_table(found)]:
        console.print(rich_table(table))
    text = stream.getvalue()
    assert "photo [red] \\x1b[31m" in text and "b/c <1>.png" in text
    assert "[24.50, 26.00]" in text and "[-0.2500, -0.2500]" in text


def test_per_image_values_at_full_precision() -> None:
    exact = ImageScores("x,\n.png", 9, 8, "22dd", scores(1 / 3, 60.0, 2.0))
    rows = list(csv.DictReader(io.StringIO(csv_of_images(evaluation(images=(*evaluation().images, exact))))))
    assert list(rows[0])[:5] == ["image", "height", "width", "degraded psnr", "degraded ssim"]
    assert [float(row["serpent-b psnr"]) for row in rows] == [25.0, 24.0, 60.0]
    assert float(rows[2]["degraded psnr"]) == 1 / 3 and rows[2]["image"] == "x,\\n.png"


def test_notes_say_how_it_was_scored() -> None:
    text = " ".join(score_lines(evaluation(channel="y", border=4)))
    for part in ("2 images; 1 could not be evaluated", "noise_sigma 0.05", "seed 3", "8 bits", "luma", "4 pixels"):
        assert part in text
    own = score_lines(evaluation(task="mine", options={"operators": [{"operator": "jpeg"}]}))[0]
    assert "Task mine, seed 3" in own and "jpeg" not in own
    assert "PSNR above 60 dB counts as 60 dB" in text
    assert "neither clipped nor rounded" in " ".join(score_lines(evaluation(quantized=False)))
    assert "not known whether" in training_lines(evaluation())[0]
