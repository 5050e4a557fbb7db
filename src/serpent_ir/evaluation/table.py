"""An evaluation as tables: one content, and how it looks in a terminal, in Markdown, in LaTeX, and image by image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serpent_ir.evaluation.notes import row_name, score_lines, training_lines, warning_lines
from serpent_ir.evaluation.results import Evaluation
from serpent_ir.evaluation.scoring import Metric
from serpent_ir.evaluation.statistics import Difference, Interval
from serpent_ir.files import printable

if TYPE_CHECKING:
    from rich.table import Table

LATEX_ESCAPES = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class Cell:
    """text: the value. detail: what stands small beside it. rank: 1 for the best of a column, 2 the second, else 0."""

    text: str
    detail: str = ""
    rank: int = 0


@dataclass(frozen=True)
class ScoreTable:
    """A title, the columns' names, and rows of cells; the first cell of a row is its name."""

    title: str
    header: list[str]
    rows: list[list[Cell]]


def tables(evaluation: Evaluation) -> list[ScoreTable]:
    """The means of all rows, and the differences to the first model."""
    return [mean_table(evaluation), difference_table(evaluation)]


def mean_table(evaluation: Evaluation) -> ScoreTable:
    """The mean of each score with its 95 % interval; best and second best among the models are marked."""
    header = [f"{metric.label} {'↑' if metric.higher_is_better else '↓'}" for metric in evaluation.metrics]
    columns = []
    for metric in evaluation.metrics:
        marks = ranks({label: evaluation.mean(label, metric.name) for label in evaluation.labels}, metric)
        columns.append(
            [mean_cell(evaluation.means[row][metric.name], metric, marks.get(row, 0)) for row in evaluation.rows]
        )
    names = [Cell(row_name(evaluation, row)) for row in evaluation.rows]
    return ScoreTable(
        printable(f"{evaluation.task} on {evaluation.folder}"), ["", *header], transposed([names, *columns])
    )


def difference_table(evaluation: Evaluation) -> ScoreTable:
    """What the other rows have more than the first model, image for image, and the share of images they win."""
    first, metrics = evaluation.labels[0], evaluation.metrics
    cells = [
        [
            Cell(printable(row)),
            *(difference_cell(evaluation.differences[row][metric.name], metric) for metric in metrics),
        ]
        for row in evaluation.rows
        if row != first
    ]
    return ScoreTable(f"difference to {printable(first)}", ["", *(metric.label for metric in metrics)], cells)


def mean_cell(interval: Interval, metric: Metric, rank: int) -> Cell:
    return Cell(f"{interval.mean:.{metric.digits}f}", ends(interval, f".{metric.digits}f"), rank)


def difference_cell(difference: Difference, metric: Metric) -> Cell:
    form = f"+.{metric.digits}f"
    details = [ends(difference.interval, form), f"wins {100 * difference.won:.0f} %"]
    return Cell(f"{difference.interval.mean:{form}}", ", ".join(detail for detail in details if detail))


def ends(interval: Interval, form: str) -> str:
    """The confidence interval; nothing for a single image, which has none."""
    return f"[{interval.low:{form}}, {interval.high:{form}}]" if interval.images > 1 else ""


def ranks(means: dict[str, float], metric: Metric) -> dict[str, int]:
    """1 for the best and 2 for the second of at least two rows, by the digits that are shown."""
    shown = {row: round(mean, metric.digits) for row, mean in means.items()}
    if len(shown) < 2:
        return {}
    best = sorted(set(shown.values()), reverse=metric.higher_is_better)[:2]
    return {row: best.index(mean) + 1 for row, mean in shown.items() if mean in best}


def transposed(columns: list[list[Cell]]) -> list[list[Cell]]:
    return [list(row) for row in zip(*columns, strict=True)]


def rich_table(table: ScoreTable) -> Table:
    """For a terminal: the best of a column in bold, the second underlined."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(table.title), title_justify="left")
    for index, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in table.rows:
        texts = []
        for cell in row:
            text = Text(cell.text, style={1: "bold", 2: "underline"}.get(cell.rank, ""))
            detail = cell.detail.replace("], ", "]\n")  # narrow enough for 80 columns
            texts.append(text.append(f"\n{detail}", style="dim not bold not underline") if detail else text)
        drawn.add_row(*texts)
    return drawn


def image_table(evaluation: Evaluation) -> ScoreTable:
    """The PSNR of every row, image by image."""
    rows = []
    for image in evaluation.images:
        values = [image.scores[row].psnr for row in evaluation.rows]
        rows.append([Cell(printable(image.name)), *(Cell(f"{value:.2f}") for value in values)])
    return ScoreTable("PSNR dB, image by image", ["", *map(printable, evaluation.rows)], rows)


def markdown(evaluation: Evaluation) -> str:
    """The tables and everything a reader must know of them; the best of a column in bold, the second underlined."""
    lines: list[str] = []
    for table in tables(evaluation):
        lines += [f"**{md(table.title)}**", "", line_of(map(md, table.header))]
        lines.append(line_of(["---", *["---:"] * (len(table.header) - 1)]))
        for row in table.rows:
            values = [
                {1: f"**{md(cell.text)}**", 2: f"<u>{md(cell.text)}</u>"}.get(cell.rank, md(cell.text)) for cell in row
            ]
            details = [f" {md(cell.detail)}" if cell.detail else "" for cell in row]
            lines.append(line_of(value + detail for value, detail in zip(values, details, strict=True)))
        lines.append("")
    warnings = [f"**{md(line)}**" for line in warning_lines(evaluation)]
    notes = [*warnings, *map(md, [*score_lines(evaluation), *training_lines(evaluation)])]
    return "\n".join([*lines, *(f"- {note}" for note in notes)]) + "\n"


def latex(evaluation: Evaluation) -> str:
    r"""The tables for \input, with the package booktabs; the best of a column in bold, the second underlined."""
    notes = [*warning_lines(evaluation), *score_lines(evaluation), *training_lines(evaluation)]
    lines = [f"% {note}" for note in notes] + [r"% \usepackage{booktabs}"]
    for table in tables(evaluation):
        lines += ["", f"% {table.title}", rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(tex, table.header)) + r" \\", r"\midrule"]
        for row in table.rows:
            values = [
                {1: rf"\textbf{{{tex(cell.text)}}}", 2: rf"\underline{{{tex(cell.text)}}}"}.get(
                    cell.rank, tex(cell.text)
                )
                for cell in row
            ]
            details = [rf" {{\scriptsize {tex(cell.detail)}}}" if cell.detail else "" for cell in row]
            lines.append(" & ".join(value + detail for value, detail in zip(values, details, strict=True)) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def csv_of_images(evaluation: Evaluation) -> str:
    """One line per image: name, size, and every score of every row at full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [(row, metric.name) for row in evaluation.rows for metric in evaluation.metrics]
    writer.writerow(["image", "height", "width", *(f"{printable(row)} {metric}" for row, metric in columns)])
    for image in evaluation.images:
        scores = [repr(getattr(image.scores[row], metric)) for row, metric in columns]
        writer.writerow([printable(image.name), image.height, image.width, *scores])
    return stream.getvalue()


def line_of(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def md(text: str) -> str:
    """Text that Markdown leaves alone."""
    return "".join(f"\\{letter}" if letter in "\\|*_`<>[]#" else letter for letter in text)


def tex(text: str) -> str:
    """Text that LaTeX leaves alone."""
    symbols = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join(LATEX_ESCAPES.get(letter) or symbols.get(letter, letter) for letter in text)
