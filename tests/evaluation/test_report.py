from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from stand_ins_of_evaluation import evaluation

from serpent_ir.errors import FileWriteError
from serpent_ir.evaluation import Evaluation, Gallery, write_report
from serpent_ir.images import read_image

VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def gallery_of(found: Evaluation, limit: int = 48) -> Gallery:
    gallery = Gallery(limit)
    for image in found.images:
        size = image.height, image.width
        pictures = {row: torch.rand(3, *size) for row in [*found.rows, "clean"]}
        gallery.add(image, pictures)
    return gallery


def test_writes_everything(tmp_path: Path) -> None:
    found = evaluation()
    gallery = gallery_of(found)
    write_report(found, tmp_path / "new" / "out", gallery)
    folder = tmp_path / "new" / "out"
    names = ["evaluation.json", "images.csv", "index.html", "pictures", "table.md", "table.tex"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(found.as_json()))
    assert "25.25" in (folder / "table.md").read_text() and "25.25" in (folder / "table.tex").read_text()
    assert len(list((folder / "pictures").iterdir())) == 2 * 4 * 2
    crop = read_image(folder / "pictures" / "0000-02-crop.png").pixels
    torch.testing.assert_close(crop, gallery.exhibits[0].crops["other_one"], rtol=0, atol=0.51 / 255)


def test_the_page_shows_every_picture_and_asks_for_nothing_else(tmp_path: Path) -> None:
    found = evaluation()
    write_report(found, tmp_path, gallery_of(found))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    sources = [attributes["src"] for attributes in page.all("img")]
    assert sorted(map(str, sources)) == sorted(f"pictures/{path.name}" for path in (tmp_path / "pictures").iterdir())
    assert not any("src" in attributes for attributes in page.all("script")) and not page.all("link")
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    order = [attributes["data-name"] for attributes in page.all("article")]
    assert order == ["b/c <1>.png", "a.png"], "by the PSNR of the first model above the second"
    assert "WARNING: other_one was trained on 1 of 2 evaluated images" in text
    for part in ("25.00 dB · SSIM 0.750", "serpent-b -0.50 dB above other_one", "24.50</span> <small>[24.00, 25.00]"):
        assert part in text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    found = evaluation(folder="<script>alert(1)</script>\udcff", task="own\udcfe")
    write_report(found, tmp_path, gallery_of(found))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "b/c &lt;1&gt;.png" in text and "own\\udcfe on" in text and "\\udcff" in text
    assert len(Page(text).all("script")) == 1


def test_pictures_of_an_earlier_page_go_and_other_files_stay(tmp_path: Path) -> None:
    found = evaluation()
    write_report(found, tmp_path, gallery_of(found))
    (tmp_path / "pictures" / "holiday.png").touch()
    write_report(found, tmp_path, gallery_of(found, limit=0))
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["holiday.png"]
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.all("table") and not page.all("img") and not page.all("script")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match="cannot be created"):
        write_report(evaluation(), tmp_path / "file" / "below")
