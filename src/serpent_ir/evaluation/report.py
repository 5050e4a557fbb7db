"""Everything an evaluation leaves in its folder."""

from __future__ import annotations

from pathlib import Path

from serpent_ir.errors import FileWriteError
from serpent_ir.evaluation.gallery import Gallery
from serpent_ir.evaluation.page import write_page
from serpent_ir.evaluation.results import Evaluation
from serpent_ir.evaluation.table import csv_of_images, latex, markdown
from serpent_ir.text_file import write_json, write_text


def write_report(evaluation: Evaluation, folder: str | Path, gallery: Gallery | None = None) -> None:
    """Write evaluation.json, table.md, table.tex, images.csv and index.html with pictures/ into `folder`.

    The folder is made when it is missing. Each file appears whole or not at all. gallery: the photographs of the page;
    without one it has none. Raises FileWriteError or ImageWriteError.
    """
    folder = Path(folder)
    make_folder(folder)
    write_json(evaluation.as_json(), folder / "evaluation.json")
    write_text(markdown(evaluation), folder / "table.md")
    write_text(latex(evaluation), folder / "table.tex")
    write_text(csv_of_images(evaluation), folder / "images.csv")
    write_text(write_page(evaluation, gallery or Gallery(0), folder), folder / "index.html")


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"folder {folder} cannot be created ({error.strerror})") from error
