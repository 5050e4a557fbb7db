from __future__ import annotations

import json
from pathlib import Path

import pytest
from photograph_files import Maker
from typer.testing import CliRunner, Result

from serpent_ir.cli.main import app


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def prepare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "prepare", *map(str, arguments), "--workers", "0"])


def test_prints_the_path_for_a_recipe(make: Maker) -> None:
    for number in range(3):
        make.image(f"in/{number}.png", number)
    out = make.root / "out"
    result = prepare(make.root / "in", out, "--shard-size", 2, "--size", 16, "--square", "--format", "webp")
    assert (result.exit_code, result.stdout) == (0, f"{out}/shard-{{000000..000001}}.tar\n")
    assert "3 photographs in 2 shards; 0 left out" in result.stderr
    again = prepare(f"{out}/shard-{{000000..000001}}.tar", make.root / "again", "--limit", 1)
    assert (again.exit_code, again.stdout) == (0, f"{make.root / 'again'}/shard-000000.tar\n")
    samples = json.loads((make.root / "again" / "shard-000000.tar.json").read_text())["samples"]
    assert [(one["name"], one["height"], one["width"]) for one in samples] == [("0.png", 16, 16)]


def test_what_is_left_out_is_named_and_makes_the_status_1(make: Maker) -> None:
    make.image("in/a.png")
    (make.root / "in" / "b.png").write_bytes(b"no image")
    (make.root / "in" / "c.heic").touch()
    result = prepare(make.root / "in", make.root / "out")
    assert result.exit_code == 1
    assert "1 left out" in result.stderr and "b.png is not an image" in result.stderr
    assert "1 ignored, no images by their suffix or links to folders: c.heic" in result.stderr
    report = json.loads((make.root / "out" / "report.json").read_text())
    assert report["images"] == 1 and report["ignored"] == ["c.heic"]
    assert [one["name"] for one in report["left_out"]] == ["b.png"]


def test_nothing_readable_is_no_shard(make: Maker) -> None:
    (make.root / "in").mkdir()
    (make.root / "in" / "b.png").write_bytes(b"no image")
    result = prepare(make.root / "in", make.root / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no readable image" in result.stderr and "No shard was written" in result.stderr
    assert not any((make.root / "out").iterdir())


def test_errors_are_named(make: Maker) -> None:
    result = prepare(make.root / "nowhere", make.root / "out")
    assert result.exit_code == 2 and "nowhere" in result.stderr
    assert not (make.root / "out").exists()
