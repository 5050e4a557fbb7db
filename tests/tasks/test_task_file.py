from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serpent_ir import tasks
from serpent_ir.errors import DataError, RangeError, UnknownNameError


def test_names_and_files(tmp_path: Path) -> None:
    (tmp_path / "foggy.json").write_text('[{"operator": "jpeg", "quality": [30, 90]}]')
    (tmp_path / "foggy.YAML").write_text("- {operator: jpeg, quality: [30, 90]}\n")
    assert tasks.load_task("denoise", sigma=25).options == {"sigma": 25.0}
    clean = torch.rand(2, 3, 9, 9)
    expected = tasks.create("jpeg", quality=[30, 90])(clean, torch.Generator().manual_seed(0))
    for path in (tmp_path / "foggy.json", str(tmp_path / "foggy.YAML")):
        task = tasks.load_task(path)
        assert task.name == "foggy" and task.options == {"operators": [{"operator": "jpeg", "quality": [30, 90]}]}
        assert torch.equal(task(clean, torch.Generator().manual_seed(0)), expected)


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    for name, text in (("a.json", "[{"), ("a.yaml", "[{"), ("b.json", "[" * 100_000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            tasks.load_task(tmp_path / name)
    (tmp_path / "c.json").write_text('{"operator": "jpeg"}')
    with pytest.raises(RangeError, match=r"task 'c': operators .* a list"):
        tasks.load_task(tmp_path / "c.json")
    with pytest.raises(DataError, match="No such file"):
        tasks.load_task(tmp_path / "missing.json")
    with pytest.raises(UnknownNameError, match=r"options quality beside the task file"):
        tasks.load_task(tmp_path / "c.json", quality=3)
    (tmp_path / "deblur.json").write_text('[{"operator": "jpeg"}]')
    with pytest.raises(DataError, match=r"name of the registered task 'deblur'.*Rename"):
        tasks.load_task(tmp_path / "deblur.json")
    with pytest.raises(UnknownNameError, match="unknown task 'fog'"):
        tasks.load_task("fog")
