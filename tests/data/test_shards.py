from __future__ import annotations

import json
import logging
import os
import tarfile
from pathlib import Path

import pytest
import torch
from photograph_files import Maker, random_pixels

from serpent_ir.data import PhotographSource, list_photographs, load_photographs, open_photographs
from serpent_ir.data.shards import index_location, locations_of, split_name
from serpent_ir.errors import DataError
from serpent_ir.images import encode_pixels
from serpent_ir.urls import shown


def png(seed: int) -> bytes:
    return encode_pixels(random_pixels(seed), ".png")


def entry_names(path: str | Path) -> list[str]:
    return [entry.name for entry in list_photographs(PhotographSource(str(path))).entries]


def test_brace_notation() -> None:
    assert locations_of("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert locations_of("s3://b/{0..1}/a-{00..01}.tar") == [f"s3://b/{x}/a-{y}.tar" for x in "01" for y in ("00", "01")]
    for wrong in ("a-{3..1}.tar", "a-{x}.tar", "a-{0..1.tar", "a-{0..99999999}.tar"):
        with pytest.raises(DataError, match="shards"):
            locations_of(wrong)


def test_names_are_split_as_webdataset_does() -> None:
    assert split_name("folder.x/a.seg.PNG") == ("folder.x/a", ".seg.png")
    assert split_name("a") == ("a", "")
    assert index_location("https://host/a.tar?key=1") == "https://host/a.tar.json?key=1"
    assert index_location("what?/a.tar") == "what?/a.tar.json"
    assert not PhotographSource("a.tar?/b").is_shards and PhotographSource("what?/a.tar").is_shards
    assert PhotographSource("https://host/a.tar?key=1").is_shards


def test_images_of_samples_by_their_headers(make: Maker) -> None:
    members = {"b.png": png(1), "b.json": b"{}", "a.cls": b"3", "a.webp": encode_pixels(random_pixels(2), ".webp")}
    make.tar("s-0.tar", {**members, "c.txt": b"no image", "d.mask.png": png(3)})
    make.tar("s-1.tar", {"e.JPG": encode_pixels(random_pixels(4), ".jpg"), "e.png": png(5)})
    source = PhotographSource(str(make.root / "s-{0..1}.tar"))
    listing = list_photographs(source)
    assert [entry.name for entry in listing.entries] == ["b.png", "a.webp", "e.JPG"]
    assert [problem.rsplit(": ", 1)[1] for problem in listing.problems] == [
        "sample c has no image",
        "sample d has no image",
    ]
    pixels = [photograph.pixels for photograph in load_photographs([source])]
    assert torch.equal(pixels[0], random_pixels(1)) and torch.equal(pixels[1], random_pixels(2))
    assert entry_names(make.root / "s-0.tar") == ["b.png", "a.webp"]
    folder = PhotographSource(str(make.root), layout="shards")
    assert [entry.name for entry in list_photographs(folder).entries] == ["b.png", "a.webp", "e.JPG"]


def test_names_inside_an_archive_are_never_paths(make: Maker) -> None:
    """Neither reading the headers nor decoding touches a file of such a name, and links are no images."""
    victim = make.root / "victim.png"
    victim.write_bytes(png(9))
    link, hard = tarfile.TarInfo("link.png"), tarfile.TarInfo("hard.png")
    link.type, link.linkname = tarfile.SYMTYPE, str(victim)
    hard.type, hard.linkname = tarfile.LNKTYPE, str(victim)
    device = tarfile.TarInfo("device.png")
    device.type = tarfile.CHRTYPE
    members = {"../../victim.png": png(1), str(victim): png(2), "..": png(3), "a\x1b[31m\n.png": png(4)}
    make.tar("in/s.tar", {**members, "link.png": link, "hard.png": hard, "device.png": device})
    before = sorted(make.root.rglob("*"))
    photographs = load_photographs([PhotographSource(str(make.root / "in" / "s.tar"))])
    assert [photograph.name for photograph in photographs] == ["../../victim.png", str(victim), "a\x1b[31m\n.png"]
    for photograph, seed in zip(photographs, (1, 2, 4), strict=True):
        assert torch.equal(photograph.pixels, random_pixels(seed))
    assert sorted(make.root.rglob("*")) == before and victim.read_bytes() == png(9)


def test_damaged_shards_are_left_out(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    make.tar("s-0.tar", {"a.png": png(1)})
    whole = make.tar("s-1.tar", {"b.png": png(2), "c.png": png(3)})
    whole.write_bytes(whole.read_bytes()[:2500])
    (make.root / "s-2.tar").write_bytes(b"no archive")
    with caplog.at_level(logging.WARNING):
        photographs = load_photographs([PhotographSource(str(make.root / "s-{0..3}.tar"))])
    assert [photograph.name for photograph in photographs] == ["a.png"]
    assert "3 left out" in caplog.text
    assert all(f"s-{number}.tar" in caplog.text for number in (1, 2, 3))
    with pytest.raises(DataError, match="holds no image that can be used"):
        entry_names(make.root / "s-2.tar")


@pytest.mark.parametrize("damage", ["flipped bit", "cut behind an image", "cut inside a header", "no end"])
def test_shards_that_end_too_early_are_damaged(make: Maker, damage: str) -> None:
    """tarfile takes a header that it cannot read, unless it is the first, for the end."""
    shard = make.tar("s.tar", {f"{number}.png": png(number) for number in range(3)})
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as archive:
        header = archive.getmember("1.png" if damage == "flipped bit" else "2.png")
    if damage == "flipped bit":
        content[header.offset] ^= 1
    elif damage == "no end":
        end = header.offset_data + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        del content[end:]
    else:
        del content[header.offset + (100 if damage == "cut inside a header" else 0) :]
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"s\.tar is damaged or cut off behind [123] samples"):
        list_photographs(PhotographSource(str(shard)))


def test_an_archive_without_members_is_none_of_images(make: Maker) -> None:
    with pytest.raises(DataError, match="holds no image that can be used; expected"):
        list_photographs(PhotographSource(str(make.tar("s.tar", {}))))


def test_damaged_images_inside_a_shard_are_skipped(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    make.tar("s.tar", {"a.png": png(1)[:-30], "b.png": b"", "c.png": png(2), "d.png": b"text"})
    assert [one.name for one in load_photographs([PhotographSource(str(make.root / "s.tar"))])] == ["c.png"]
    assert all(name in caplog.text for name in ("a.png", "b has no image", "d.png"))


@pytest.fixture
def indexed(make: Maker) -> Path:
    """A shard of two images and an index that names the second one alone, under another name."""
    shard = make.tar("s.tar", {"a.png": png(1), "b.png": png(2)})
    with tarfile.open(shard) as archive:
        info = archive.getmember("b.png")
    place = {"offset": info.offset_data, "size": info.size, "height": 20, "width": 30, "hash": "0123456789abcdef"}
    index = {"bytes": shard.stat().st_size, "samples": [{"name": "indexed", **place}]}
    shard.with_name("s.tar.json").write_text(json.dumps(index))
    return shard


def test_an_index_replaces_the_headers(indexed: Path) -> None:
    source = PhotographSource(str(indexed))
    photographs = open_photographs([source], "none", None)
    assert len(photographs) == 1 and not photographs.in_memory
    assert photographs[0].name == "indexed" and torch.equal(photographs[0].pixels, random_pixels(2))
    assert photographs.hashes() == ["0123456789abcdef"]


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 3},
        {"samples": 3},
        {"samples": [{"name": "x"}]},
        {"samples": [{"name": "x", "offset": -1, "size": 9, "height": 1, "width": 1, "hash": ""}]},
        {"samples": [{"name": "x", "offset": 0, "size": 10**12, "height": 1, "width": 1, "hash": ""}]},
    ],
)
def test_an_index_that_cannot_be_right_is_not_used(
    indexed: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    path = indexed.with_name("s.tar.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert entry_names(indexed) == ["a.png", "b.png"]
    assert "headers are read instead" in caplog.text


def test_a_shard_that_is_missing_beside_its_index_is_a_problem(indexed: Path, make: Maker) -> None:
    make.tar("t-0.tar", {"t.png": png(3)})
    indexed.with_name("s.tar.json").rename(make.root / "t-1.tar.json")
    listing = list_photographs(PhotographSource(str(make.root / "t-{0..1}.tar")))
    assert [entry.name for entry in listing.entries] == ["t.png"]
    assert len(listing.problems) == 1 and "t-1.tar cannot be read (No such file" in listing.problems[0]


def test_an_index_that_cannot_be_read_is_not_used(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert entry_names(indexed) == ["a.png", "b.png"]
    assert "s.tar cannot be read (Permission denied). The archive's headers" in caplog.text


@pytest.fixture
def server(make: Maker, monkeypatch: pytest.MonkeyPatch) -> str:
    """Shards behind a URL of fsspec, and an empty folder for copies."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for number in range(2):
        memory.pipe(f"/shards/s-{number}.tar", make.tar("local.tar", {f"{number}.png": png(number)}).read_bytes())
    (make.root / "local.tar").unlink()
    monkeypatch.setenv("SERPENT_CACHE", str(make.root / "cache"))
    return "memory://shards/s-{0..1}.tar"


def test_remote_shards_are_copied_once(server: str, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    photographs = open_photographs([PhotographSource(server)], "none", None)
    assert [torch.equal(photographs[index].pixels, random_pixels(index)) for index in (0, 1)] == [True, True]
    copies = {name: (make.root / "cache" / name).stat().st_mtime_ns for name in os.listdir(make.root / "cache")}
    assert len(copies) == 2

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("fetched once more")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", refuse)
        assert len(load_photographs([PhotographSource(server)])) == 2

    fsspec.filesystem("memory").pipe("/shards/s-1.tar", make.tar("new.tar", {"1.png": png(7)}).read_bytes())
    assert torch.equal(load_photographs([PhotographSource(server)])[1].pixels, random_pixels(7))
    assert len(os.listdir(make.root / "cache")) == 3


def test_remote_shards_that_cannot_be_had_are_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(load_photographs([PhotographSource("memory://shards/s-{0..2}.tar")])) == 2
    with pytest.raises(DataError, match=r"memory://shards/other\.tar cannot be fetched"):
        load_photographs([PhotographSource("memory://shards/other.tar")])
    with pytest.raises(DataError, match="nonsense"):
        load_photographs([PhotographSource("nonsense://shards/other.tar")])


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_remote_shard_that_is_gone_costs_its_own_photographs_alone(
    server: str, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its index is still there: the listing knows nothing of it."""
    import fsspec

    memory = fsspec.filesystem("memory")
    sample = {"name": "gone", "offset": 512, "size": 9, "height": 20, "width": 30, "hash": "0123456789abcdef"}
    memory.pipe("/shards/s-2.tar.json", json.dumps({"bytes": 10240, "samples": [sample]}).encode())
    source = PhotographSource("memory://shards/s-{0..2}.tar")
    assert len(list_photographs(source).entries) == 3
    photographs = open_photographs([source], cache, None)  # type: ignore[arg-type]
    assert [photograph.name for photograph in photographs.readable()] == ["0.png", "1.png"]
    assert "memory://shards/s-2.tar cannot be fetched" in caplog.text


def test_messages_give_no_access(
    make: Maker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert shown("simplecache::s3://me:pw@bucket/a@b.tar?key=1::x") == "simplecache::s3://bucket/a@b.tar"
    assert shown("folder/what?/me@home") == "folder/what?/me@home"
    url = "https://me:secret@host/s-{0..1}.tar?key=secret"

    def refuse(url: str) -> None:
        raise FileNotFoundError(f"403, message='Forbidden', url='{url.replace('s-', 's%2D')}' ({url})")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    monkeypatch.setenv("SERPENT_CACHE", str(make.root / "cache"))
    caplog.set_level(logging.INFO)
    said = []
    for source in (PhotographSource(url), PhotographSource(url, layout="folder"), PhotographSource(f"{url}{{")):
        with pytest.raises(DataError) as error:
            load_photographs([source])
        said.append(str(error.value))
    with pytest.raises(DataError) as error:
        PhotographSource(url, shrink=(0.0, 1.0))
    text = " ".join([*said, str(error.value), caplog.text])
    assert "https://host/s-0.tar" in text and "secret" not in text and "me:" not in text


def test_a_copy_that_ends_early_is_not_kept(server: str, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_early(system: object, source: str, target: str) -> None:
        Path(target).write_bytes(b"some")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", stop_early)
    with pytest.raises(DataError, match="ended after 4 of"):
        load_photographs([PhotographSource(server)])
    assert os.listdir(make.root / "cache") == []


def test_missing_fsspec_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from serpent_ir.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"serpent-ir\[remote\]"):
        load_photographs([PhotographSource("https://host/a.tar")])
