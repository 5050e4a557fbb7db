"""Folders: what is written where, what is skipped, and what may never be overwritten."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pyvips
import torch

from serpent_ir.errors import DataError, ImageReadError, ImageWriteError, RestorationError, ShapeError
from serpent_ir.images import (
    FileOutcome,
    Picture,
    plan_file,
    plan_folder,
    read,
    read_image,
    transform_folder,
    write,
    write_image,
)


def invert(picture: Picture, name: str) -> Picture:
    return replace(picture, pixels=1 - picture.pixels)


def save(path: Path, value: float = 0.2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        pyvips.Image.black(3, 2, bands=3).copy(interpretation="srgb").gifsave(str(path))
    else:
        write_image(Picture(torch.full((3, 4, 5), value)), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good images and three bad ones."""
    source = tmp_path / "in"
    save(source / "a.png")
    save(source / "deep" / "er" / "b.tif")
    save(source / "c.jpg")
    (source / "empty.png").touch()
    (source / "text.png").write_text("not an image")
    (source / "half.png").write_bytes((source / "a.png").read_bytes()[:60])
    (source / "notes.txt").write_text("not of interest")
    return source


def test_good_and_bad_files(folder: Path, tmp_path: Path) -> None:
    target, seen = tmp_path / "out", list[FileOutcome]()
    summary = transform_folder(plan_folder(folder, target), invert, seen.append)
    assert [path.target.relative_to(target).as_posix() for path in summary.done] == ["a.png", "c.jpg", "deep/er/b.tif"]
    assert [path.source.name for path in summary.failed] == ["empty.png", "half.png", "text.png"]
    reasons = [str(path.reason) for path in summary.failed]
    assert "0 bytes" in reasons[0] and "truncated" in reasons[1] and "not an image" in reasons[2]
    assert seen == list(summary.outcomes)
    assert summary.ignored == [folder / "notes.txt"] and not summary.complete
    assert summary.seconds > 0
    written = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert written == ["a.png", "c.jpg", "deep/er/b.tif"]
    assert read_image(target / "deep/er/b.tif").pixels.unique().tolist() == pytest.approx([0.8])


def test_names_are_relative_with_forward_slashes(folder: Path, tmp_path: Path) -> None:
    names: list[str] = []

    def note(picture: Picture, name: str) -> Picture:
        names.append(name)
        return picture

    transform_folder(plan_folder(folder, tmp_path / "out"), note)
    assert names == ["a.png", "c.jpg", "deep/er/b.tif"]


def test_a_failing_transform_is_counted_but_a_programming_error_ends_the_run(folder: Path, tmp_path: Path) -> None:
    def fail(picture: Picture, name: str) -> Picture:
        raise RestorationError("the model's output is not finite")

    plan = plan_folder(folder, tmp_path / "out")
    summary = transform_folder(plan, fail)
    assert len(summary.failed) == 6 and not (tmp_path / "out").exists()

    def wrong(picture: Picture, name: str) -> Picture:
        raise ShapeError("something else")

    with pytest.raises(ShapeError):
        transform_folder(plan, wrong)


def test_earlier_results_survive_a_failure_of_the_same_file(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    transform_folder(plan_folder(folder, target), invert)
    old = (target / "a.png").read_bytes()
    (folder / "a.png").write_bytes(b"")
    summary = transform_folder(plan_folder(folder, target), invert)
    assert "a.png" in [path.source.name for path in summary.failed]
    assert (target / "a.png").read_bytes() == old


def test_formats_that_cannot_be_written_become_png_without_collisions(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a.gif", "b.gif", "b.png", "b.jpg", "c.gif", "c.png", "c.gif.png"):
        save(source / name)
    pairs = dict(plan_folder(source, tmp_path / "out").pairs)
    names = {read_from.name: write_to.name for read_from, write_to in pairs.items()}
    assert names == {
        "a.gif": "a.png",
        "b.gif": "b.gif.png",
        "b.png": "b.png",
        "b.jpg": "b.jpg",
        "c.gif": "c.gif.png.png",
        "c.png": "c.png",
        "c.gif.png": "c.gif.png",
    }


@pytest.mark.parametrize("inside", [".", "deep", "new/one", "../in", "../link"])
def test_output_folder_in_the_input_folder(folder: Path, inside: str) -> None:
    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(ImageWriteError, match="lies in the input folder"):
        plan_folder(folder, folder / inside)


def test_output_that_would_hit_an_input(tmp_path: Path) -> None:
    """Into the parent folder: in/in/a.png would be written over in/a.png."""
    save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "in" / "a.png")
    with pytest.raises(ImageWriteError, match="would be both input and output"):
        plan_folder(tmp_path / "in", tmp_path)


def test_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.heic").touch()
    with pytest.raises(DataError, match="holds no image among 1 files"):
        plan_folder(tmp_path / "in", tmp_path / "out")
    save(tmp_path / "in" / "a.png")
    (tmp_path / "out.png").touch()
    with pytest.raises(ImageWriteError, match="is a file"):
        plan_folder(tmp_path / "in", tmp_path / "out.png")


def test_plan_file(tmp_path: Path) -> None:
    source = tmp_path / "photo.jpg"
    save(source)
    save(tmp_path / "photo.gif")
    (tmp_path / "out").mkdir()
    assert plan_file(source, None, "restored") == tmp_path / "photo-restored.jpg"
    assert plan_file(tmp_path / "photo.gif", None, "restored") == tmp_path / "photo-restored.png"
    assert plan_file(source, tmp_path / "out", "restored") == tmp_path / "out" / "photo.jpg"
    assert plan_file(tmp_path / "photo.gif", tmp_path / "out", "restored") == tmp_path / "out" / "photo.png"
    assert plan_file(source, tmp_path / "other.tif", "restored") == tmp_path / "other.tif"
    with pytest.raises(ImageWriteError, match="a suffix among"):
        plan_file(source, tmp_path / "other.gif", "restored")
    (tmp_path / "link.jpg").symlink_to(source)
    for target in (source, tmp_path, tmp_path / "out" / ".." / "photo.jpg", tmp_path / "link.jpg"):
        with pytest.raises(ImageWriteError, match="is the input itself"):
            plan_file(source, target, "restored")
    assert plan_file(source, source, "restored", overwrite=True) == source
    with pytest.raises(ImageReadError, match="does not exist"):
        plan_file(tmp_path / "missing.png", None, "restored")


def test_a_folder_is_complete_without_failed_and_ignored_files(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    assert transform_folder(plan_folder(tmp_path / "in", tmp_path / "out"), invert).complete
    (tmp_path / "in" / "photo.heic").touch()
    assert not transform_folder(plan_folder(tmp_path / "in", tmp_path / "out"), invert).complete


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to"),
    ],
)
@pytest.mark.parametrize("where", ["read", "transform", "write"])
def test_too_little_memory_for_one_file_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name)
    calls: list[object] = []

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` that fails the first time."""

        def call(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 1:
                raise error
            return function(*arguments)

        return call

    transform = invert
    if where == "read":
        monkeypatch.setattr(read, "picture_from_samples", once(read.picture_from_samples))
    elif where == "transform":
        transform = once(invert)
    else:
        monkeypatch.setattr(write, "to_samples", once(write.to_samples))
    summary = transform_folder(plan_folder(tmp_path / "in", tmp_path / "out"), transform)
    assert [outcome.source.name for outcome in summary.done] == ["b.png"]
    assert "not enough memory" in str(summary.failed[0].reason) and "a.png" in str(summary.failed[0].reason)
    assert os.listdir(tmp_path / "out") == ["b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """In the name of a file and of a folder: read, written under the same bytes, and a damaged one is only left out."""
    save(tmp_path / "in" / "a.png")
    folder = os.fsencode(tmp_path / "in") + b"/\xfe"
    os.mkdir(folder)
    whole = (tmp_path / "in" / "a.png").read_bytes()
    for name, content in ((b"\xff.png", whole), (b"half\xff.png", whole[:60])):
        with open(folder + b"/" + name, "wb") as file:
            file.write(content)
    summary = transform_folder(plan_folder(tmp_path / "in", tmp_path / "out"), invert)
    assert [os.fsencode(outcome.source.name) for outcome in summary.failed] == [b"half\xff.png"]
    assert sorted(os.listdir(os.fsencode(tmp_path / "out") + b"/\xfe")) == [b"\xff.png"]
    assert sorted(os.listdir(tmp_path / "out")) == ["a.png", os.fsdecode(b"\xfe")]
