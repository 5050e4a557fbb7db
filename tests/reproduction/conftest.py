"""A table of two rows, a folder of two generated photographs, and what `serpent reproduce` is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from serpent_ir.data import generated_photographs
from serpent_ir.images import Picture, write_image
from serpent_ir.reproduction.plan import Request
from serpent_ir.reproduction.tables import Row, Table


@pytest.fixture(scope="session")
def two_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for photograph in generated_photographs(2, seed=3):
        write_image(Picture(photograph.pixels[:, :48, :64].float() / 255), folder / f"{photograph.name}.png")
    return folder


@pytest.fixture
def photographs(two_photographs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_photographs, tmp_path / "photographs"))


@pytest.fixture
def table() -> Table:
    rows = (
        Row("first", "The first", "deblurring", "equal-budget"),
        Row("second", "The second", "deblurring", "equal-budget", {"lr": 5e-4, "model_options": {"directions": 1}}),
    )
    return Table("Two rows", "folders", rows)


@pytest.fixture
def request_(photographs: Path) -> Request:
    return Request(data=[str(photographs)], val=[str(photographs)], budget="2s", arguments=["--threads", "1"])
