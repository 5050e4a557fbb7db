"""A page to look at: the tables, and photographs with the images of all rows side by side.

A folder that holds all it needs: index.html and pictures/. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from torch import Tensor

from serpent_ir.errors import FileWriteError
from serpent_ir.evaluation.gallery import Box, Exhibit, Gallery
from serpent_ir.evaluation.notes import score_lines, training_lines, warning_lines
from serpent_ir.evaluation.results import CLEAN, DEGRADED, Evaluation
from serpent_ir.evaluation.scoring import Scores
from serpent_ir.evaluation.table import ScoreTable, tables
from serpent_ir.files import printable
from serpent_ir.images import Picture, write_image

PICTURES = "pictures"
PICTURE_NAME = re.compile(r"\d{4,}-\d{2,}-(crop|whole)\.png")
"""What `picture_name` makes."""
STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))


def write_page(evaluation: Evaluation, gallery: Gallery, folder: Path) -> str:
    """Write the pictures into `folder`/pictures, and return the text of the page that shows them.

    Pictures of an earlier page there are removed. Raises ImageWriteError or FileWriteError.
    """
    pictures = folder / PICTURES
    try:
        for path in pictures.glob("*.png"):
            if PICTURE_NAME.fullmatch(path.name):
                path.unlink()
    except OSError as error:
        raise FileWriteError(f"{pictures} cannot be emptied ({error.strerror})") from error
    articles = []
    for index, exhibit in enumerate(gallery.exhibits):
        for column, row in enumerate(exhibit.crops):
            for kind, images in (("crop", exhibit.crops), ("whole", exhibit.wholes)):
                write_image(Picture(images[row]), pictures / picture_name(index, column, kind))
        articles.append(article(evaluation, exhibit, index))
    return page(evaluation, articles)


def picture_name(index: int, column: int, kind: str) -> str:
    return f"{index:04}-{column:02}-{kind}.png"


def page(evaluation: Evaluation, articles: list[str]) -> str:
    title = printable(f"{evaluation.task} on {evaluation.folder}")
    warnings = "".join(f'<p class="warning">{escape(line)}</p>' for line in warning_lines(evaluation))
    notes = "".join(f"<li>{escape(line)}</li>" for line in [*score_lines(evaluation), *training_lines(evaluation)])
    means, differences = tables(evaluation)
    script = f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>" if articles else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{warnings}
{table_html(means)}
<h2>{escape(differences.title)}</h2>
{table_html(differences)}
<ul class="notes">{notes}</ul>
{tools(evaluation, len(articles)) if articles else ""}
<main>
{"".join(articles)}
</main>
{script}
</body>
</html>
"""


def tools(evaluation: Evaluation, shown: int) -> str:
    """The heading of the photographs, and the choice of their order."""
    first, second = compared(evaluation)
    of = f"{shown} photographs" if shown == len(evaluation.images) else f"The {shown} most different photographs"
    choices = {
        "difference 1": f"{first} above {second}",
        "difference -1": f"{second} above {first}",
        "first 1": f"PSNR of {first}, highest first",
        "first -1": f"PSNR of {first}, lowest first",
        "name": "name",
    }
    options = "".join(f'<option value="{key}">{escape(printable(text))}</option>' for key, text in choices.items())
    ends = "" if shown == len(evaluation.images) else f" of {len(evaluation.images)}, half from each end"
    return f'<div class="tools"><h2>{of}{ends}</h2><label>by <select id="order">{options}</select></label></div>'


def compared(evaluation: Evaluation) -> tuple[str, str]:
    """The two rows that the photographs are ordered by."""
    labels = evaluation.labels
    return (labels[0], labels[1] if len(labels) > 1 else DEGRADED)


def table_html(table: ScoreTable) -> str:
    header = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = ""
    for name, *cells in table.rows:
        rows += f"<tr><th>{escape(name.text)}</th>"
        for cell in cells:
            kind = {1: ' class="best"', 2: ' class="second"'}.get(cell.rank, "")
            detail = f" <small>{escape(cell.detail)}</small>" if cell.detail else ""
            rows += f"<td><span{kind}>{escape(cell.text)}</span>{detail}</td>"
        rows += "</tr>"
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>'


def article(evaluation: Evaluation, exhibit: Exhibit, index: int) -> str:
    scores = exhibit.scores
    first, second = compared(evaluation)
    figures = "".join(
        figure(
            row, scores.scores.get(row), exhibit.box, exhibit.wholes[row], index, column, scores.height, scores.width
        )
        for column, row in enumerate(exhibit.crops)
    )
    name, size = escape(printable(scores.name)), f"{scores.width} x {scores.height}"
    above = escape(printable(f"{first} {exhibit.difference:+.2f} dB above {second}"))
    numbers = {"difference": exhibit.difference, "first": scores.scores[first].psnr}
    keys = " ".join(f'data-{key}="{value}"' for key, value in numbers.items())
    return f"""<article data-name="{name}" {keys}>
<h3>{name} <span>{size} · {above}</span></h3>
<div class="row">{figures}</div>
</article>
"""


def figure(
    row: str, scores: Scores | None, box: Box, whole: Tensor, index: int, column: int, height: int, width: int
) -> str:
    """A column: the crop, the whole image with the crop's place, the name and the scores."""
    place = "; ".join(
        f"{side}: {100 * share:.2f}%"
        for side, share in (
            ("left", box.left / width),
            ("top", box.top / height),
            ("width", box.width / width),
            ("height", box.height / height),
        )
    )
    crop, small = (f"{PICTURES}/{picture_name(index, column, kind)}" for kind in ("crop", "whole"))
    text = score_text(scores) if scores is not None else "the photograph itself" if row == CLEAN else ""
    label = escape(printable(row))
    return f"""<figure>
<img class="crop" src="{crop}" width="{box.width}" height="{box.height}" alt="{label}, crop" loading="lazy">
<div class="whole"><img src="{small}" width="{whole.shape[2]}" height="{whole.shape[1]}" alt="{label}" loading="lazy">
<i style="{place}"></i></div>
<figcaption><b>{label}</b>{text}</figcaption>
</figure>
"""


def score_text(scores: Scores) -> str:
    lpips = f" · LPIPS {scores.lpips:.3f}" if scores.lpips is not None else ""
    return f"{scores.psnr:.2f} dB · SSIM {scores.ssim:.3f}{lpips}"
