from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from photograph_files import Maker

from serpent_ir.data import PhotographSource, Preparation, PreparationReport, load_photographs, prepare_shards
from serpent_ir.errors import DataError, FileWriteError
from serpent_ir.images import content_hash


@pytest.fixture
def source(make: Maker) -> PhotographSource:
    """Seven photographs, one of them twice as large, and one file that is none."""
    for number in range(6):
        make.image(f"in/{number}.png", number, 8, 11 + number)
    make.image("in/deep/photo.v2.jpg", 6, 16, 22)
    (make.root / "in" / "2-broken.png").write_bytes(b"no image")
    (make.root / "in" / "notes.txt").touch()
    return PhotographSource(str(make.root / "in"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def prepare(source: PhotographSource, out: Path, workers: int = 0, **options: object) -> PreparationReport:
    return prepare_shards(source, out, Preparation(**{"shard_size": 3, **options}), workers)  # type: ignore[arg-type]


def test_shards_hold_the_files_as_they_are(source: PhotographSource, make: Maker) -> None:
    report = prepare(source, make.root / "out")
    assert (report.images, report.kept, report.complete) == (7, 0, False)
    assert report.shards == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]
    assert [one["name"] for one in report.left_out] == ["2-broken.png"]
    assert "not an image of a known format" in report.left_out[0]["reason"]
    assert report.others == ["notes.txt"]
    before = load_photographs([source])
    for index in make.root.glob("out/*.json"):
        shard = PhotographSource(str(index.with_suffix("")))
        with_index = load_photographs([shard])
        index.unlink()
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(with_index, load_photographs([shard]), strict=True))
        for photograph in with_index:
            original = next(one for one in before if one.name == photograph.name)
            assert torch.equal(photograph.pixels, original.pixels)
            assert photograph.hash == original.hash == content_hash(photograph.pixels)
            before.remove(original)
    assert before == []


def test_number_of_processes_changes_nothing(source: PhotographSource, make: Maker) -> None:
    seen: list[tuple[int, int]] = []
    prepare(source, make.root / "one", size=6, square=True)
    preparation = Preparation(size=6, square=True, shard_size=3)
    prepare_shards(source, make.root / "other", preparation, 2, on_progress=lambda *done: seen.append(done))
    assert content_of(make.root / "one") == content_of(make.root / "other")
    assert seen == [(done, 8) for done in range(9)]
    sizes = {
        photograph.pixels.shape
        for photograph in load_photographs([PhotographSource(str(make.root / "one"), layout="shards")])
    }
    assert sizes == {(3, 6, 6)}


@pytest.mark.parametrize("file_format", ["png", "webp", "jpg"])
def test_formats(source: PhotographSource, make: Maker, file_format: str) -> None:
    prepare(source, make.root / "out", format=file_format)
    photographs = load_photographs([PhotographSource(str(make.root / "out"), layout="shards")])
    for photograph, original in zip(photographs, load_photographs([source]), strict=True):
        assert photograph.hash == content_hash(photograph.pixels)
        assert (photograph.hash == original.hash) == (file_format != "jpg" or original.name.endswith("jpg"))


def test_a_run_that_was_stopped_goes_on(source: PhotographSource, make: Maker) -> None:
    out = make.root / "out"

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_shards(source, out, Preparation(shard_size=3), 0, on_progress=stop)
    assert [*content_of(out)] == ["shard-000000.tar", "shard-000000.tar.json"]
    (out / ".serpent-0123456789abcdef.part").touch()
    first = (out / "shard-000000.tar").stat().st_mtime_ns
    report = prepare(source, out)
    assert (report.kept, report.images) == (1, 7)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == first
    prepare(source, make.root / "fresh")
    assert content_of(out) == content_of(make.root / "fresh")

    (out / "shard-000002.tar").write_bytes(b"cut off")
    (make.root / "in" / "2-broken.png").write_bytes((make.root / "in" / "1.png").read_bytes())
    again = prepare(source, out)
    assert (again.kept, again.images, again.left_out) == (1, 8, [])
    assert prepare(source, out).kept == 3


@pytest.mark.parametrize("killed_at", [1, 2])
@pytest.mark.parametrize("replaced", [False, True])
def test_killed_between_index_and_shard(
    source: PhotographSource, make: Maker, monkeypatch: pytest.MonkeyPatch, killed_at: int, replaced: bool
) -> None:
    """A shard lies beside its own index, or there is none: the next run goes on."""
    out = make.root / "out"
    if replaced:
        prepare(source, out)
        (make.root / "in" / "2-broken.png").write_bytes(b"no image either")
    renamings = 0

    def killed(*names: Path) -> None:
        nonlocal renamings
        renamings += 1
        if renamings == killed_at:
            raise KeyboardInterrupt
        rename(*names)

    rename = os.replace
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        prepare(source, out)
    assert not (out / "shard-000000.tar").exists()
    assert prepare(source, out).kept == (2 if replaced else 0)
    prepare(source, make.root / "fresh")
    assert content_of(out) == content_of(make.root / "fresh")


@pytest.mark.parametrize("index", [None, b"", b"{}", b"[]"])
def test_shards_without_an_index_of_ours_are_not_touched(
    source: PhotographSource, make: Maker, index: bytes | None
) -> None:
    shard = make.tar("out/shard-000001.tar", {"only-copy.png": (make.root / "in" / "1.png").read_bytes()})
    if index is not None:
        shard.with_name("shard-000001.tar.json").write_bytes(index)
    before = content_of(make.root / "out")
    with pytest.raises(DataError, match=r"shard-000001\.tar has no index that serpent wrote"):
        prepare(source, make.root / "out")
    assert content_of(make.root / "out") == before


def test_photographs_are_not_replaced_by_shards_of_them(source: PhotographSource, make: Maker) -> None:
    out = make.root / "out"
    prepare(source, out, size=6)
    before = content_of(out)
    (make.root / "link").symlink_to(out)
    for path in (out, make.root / "link", out / "shard-{000000..000002}.tar", out / "shard-000001.tar"):
        with pytest.raises(DataError, match="is where the photographs lie"):
            prepare(PhotographSource(str(path), layout="shards"), out, size=6)
    with pytest.raises(DataError, match="is where the photographs lie"):
        prepare(source, make.root / "in")
    assert content_of(out) == before


def test_no_shard_is_left_without_a_readable_image(make: Maker) -> None:
    (make.root / "in").mkdir()
    for number in range(3):
        (make.root / "in" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no readable image in in \(.*0\.png.*No shard was written"):
        prepare(PhotographSource(str(make.root / "in")), make.root / "out", shard_size=2)
    assert content_of(make.root / "out") == {}


def test_what_is_there_is_not_overwritten(source: PhotographSource, make: Maker) -> None:
    out = make.root / "out"
    prepare(source, out)
    before = content_of(out)
    for change in ({"size": 6}, {"format": "png"}, {"shard_size": 8}):
        with pytest.raises(DataError, match=r"other (photographs|shards)"):
            prepare(source, out, **change)
    make.image("in/0-new.png")
    with pytest.raises(DataError, match="other photographs"):
        prepare(source, out)
    assert content_of(out) == before


def test_shards_and_ffhq_can_be_prepared(source: PhotographSource, make: Maker) -> None:
    prepare(source, make.root / "out")
    first = PhotographSource(str(make.root / "out" / "shard-{000000..000002}.tar"))
    report = prepare_shards(first, make.root / "again", Preparation(), 0, limit=5)
    assert (report.images, report.complete) == (5, True)
    index = json.loads((make.root / "again" / "shard-000000.tar.json").read_text())
    assert [sample["name"] for sample in index["samples"]] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    make.image("ffhq/59999.png")
    make.image("ffhq/60000.png")
    faces = PhotographSource(str(make.root / "ffhq"), layout="ffhq", split="val")
    assert prepare_shards(faces, make.root / "faces", Preparation(), 0).images == 1


def test_a_folder_that_cannot_be_written_is_named(source: PhotographSource, make: Maker) -> None:
    (make.root / "file").touch()
    with pytest.raises(FileWriteError, match="file"):
        prepare(source, make.root / "file")
