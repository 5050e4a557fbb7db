from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from photograph_files import Maker

from serpent_ir.data import PhotographSource, load_photographs
from serpent_ir.errors import DataError


def test_bytes_of_all_folders_in_order(make: Maker, tmp_path: Path) -> None:
    second = make.image("one/b.png", 1)
    first = make.image("one/a/z.png", 2, 7, 5)
    other = make.image("two/a.png", 3)
    folders = [PhotographSource(str(tmp_path / "one"), (1.0, 2.0)), PhotographSource(str(tmp_path / "two"))]
    photographs = load_photographs(folders)
    assert [photograph.name for photograph in photographs] == [str(Path("a", "z.png")), "b.png", "a.png"]
    assert all(torch.equal(p.pixels, x) for p, x in zip(photographs, [first, second, other], strict=True))
    assert [photograph.shrink for photograph in photographs] == [(1.0, 2.0), (1.0, 2.0), (1.0, 1.0)]


def test_limit_takes_evenly_spaced_files(make: Maker, tmp_path: Path) -> None:
    for index in range(10):
        make.image(f"{index}.png", index)
    photographs = load_photographs([PhotographSource(str(tmp_path))], limit=3)
    assert [photograph.name for photograph in photographs] == ["0.png", "3.png", "6.png"]
    assert len(load_photographs([PhotographSource(str(tmp_path))], limit=99)) == 10


def test_unreadable_files_are_skipped_and_counted(
    make: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make.image("good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image")
    truncated = (tmp_path / "good.png").read_bytes()[:400]
    (tmp_path / "truncated.png").write_bytes(truncated)
    with caplog.at_level(logging.WARNING):
        photographs = load_photographs([PhotographSource(str(tmp_path))])
    assert [photograph.name for photograph in photographs] == ["good.png"]
    assert "3 of 4 images skipped" in caplog.text
    assert all(name in caplog.text for name in ("empty.png", "text.jpg", "truncated.png"))


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        load_photographs([PhotographSource(str(tmp_path))])
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match="no readable image"):
        load_photographs([PhotographSource(str(tmp_path))])
    with pytest.raises(DataError, match="does not exist"):
        load_photographs([PhotographSource(str(tmp_path / "nowhere"))])


def test_environment_variables_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PHOTOGRAPHS", str(tmp_path))
    assert PhotographSource("$TEST_PHOTOGRAPHS").folder() == tmp_path
    monkeypatch.delenv("TEST_PHOTOGRAPHS")
    with pytest.raises(DataError, match="environment variable that is not set"):
        PhotographSource("$TEST_PHOTOGRAPHS").folder()


@pytest.mark.parametrize("shrink", [(0.5, 1.0), (2.0, 1.5), (1.0, float("inf")), (1.0, float("nan"))])
def test_impossible_shrink_is_refused(shrink: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="shrink"):
        PhotographSource("anywhere", shrink)
