from __future__ import annotations

import json
from pathlib import Path

import pytest

from serpent_ir.errors import FileWriteError
from serpent_ir.text_file import write_json


def test_writes_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    content = {"numbers": [1, 2.5, None], "name": "Ünï \udcff"}
    write_json(content, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == content
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_numbers_that_are_not_finite_and_keeps_the_old_file(tmp_path: Path, value: float) -> None:
    path = tmp_path / "result.json"
    write_json({"old": True}, path)
    with pytest.raises(FileWriteError, match="not finite"):
        write_json({"value": [value]}, path)
    assert json.loads(path.read_text()) == {"old": True}


def test_says_why_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match="No such file or directory"):
        write_json({}, tmp_path / "missing" / "result.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FileWriteError, match="cannot be written"):
        write_json({}, tmp_path / "folder.json")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.json"]
