"""Folders: what is done, left out, skipped when done before, and what lies there whatever happens."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from files_of_a_batch import contents, invert, save

from serpent_ir.errors import FileWriteError, RangeError, RestorationError, ShapeError
from serpent_ir.files import leftover_name
from serpent_ir.images import Picture, decode_picture, read_image, write
from serpent_ir.restoration.batch import run_batch, sensible_workers
from serpent_ir.restoration.journal import NAME, journal_of
from serpent_ir.restoration.one import Each
from serpent_ir.restoration.outcome import BatchSummary, FileOutcome
from serpent_ir.restoration.pipeline import Room
from serpent_ir.restoration.plan import Job, plan_folder


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
    summary = run_batch(plan_folder(folder, target), invert, on_outcome=seen.append)
    assert [path.target.relative_to(target).as_posix() for path in summary.done] == ["a.png", "c.jpg", "deep/er/b.tif"]
    assert [path.source.name for path in summary.failed] == ["empty.png", "half.png", "text.png"]
    reasons = [str(path.reason) for path in summary.failed]
    assert "0 bytes" in reasons[0] and "truncated" in reasons[1] and "not an image" in reasons[2]
    assert sorted(seen, key=lambda outcome: outcome.job.name) == list(summary.outcomes)
    assert summary.ignored == (folder / "notes.txt",) and not summary.complete
    assert summary.seconds > 0
    assert [(outcome.height, outcome.width) for outcome in summary.done] == [(4, 5)] * 3
    assert all(outcome.seconds.total > 0 for outcome in summary.done)
    assert sorted(contents(target)) == ["a.png", "c.jpg", "deep/er/b.tif"]
    assert read_image(target / "deep/er/b.tif").pixels.unique().tolist() == pytest.approx([0.8])


def test_rates_count_what_this_run_did(tmp_path: Path) -> None:
    """Two pictures of 0.5 megapixels in half a second; one that was there already and one that failed do not count."""
    job = Job(tmp_path / "a.png", tmp_path / "b.png", "a.png")
    outcomes = [FileOutcome(job, status, width=1000, height=500) for status in ("done", "skipped", "done", "failed")]
    summary = BatchSummary(tuple(outcomes), (), 0.5)
    assert (summary.images_per_second, summary.megapixels_per_second) == (4.0, 2.0)


def test_the_transform_hears_names_and_its_notes_are_kept(folder: Path, tmp_path: Path) -> None:
    def note(picture: Picture, name: str) -> Picture:
        return replace(picture, notes=(f"seen as {name}",))

    summary = run_batch(plan_folder(folder, tmp_path / "out"), Each(note))
    assert [outcome.notes for outcome in summary.done] == [
        ("seen as a.png",),
        ("seen as c.jpg",),
        ("seen as deep/er/b.tif",),
    ]


def test_a_failing_transform_is_counted_but_a_programming_error_ends_the_run(folder: Path, tmp_path: Path) -> None:
    def fail(pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        raise RestorationError("the model's output is not finite")

    plan, threads = plan_folder(folder, tmp_path / "out"), threading.active_count()
    summary = run_batch(plan, fail)
    assert len(summary.failed) == 6 and not (tmp_path / "out").exists()

    def wrong(pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        raise ShapeError("something else")

    with pytest.raises(ShapeError):
        run_batch(plan, wrong)
    assert threading.active_count() == threads


@pytest.mark.parametrize("where", ["read_content", "write_target", "on_outcome"])
def test_a_defect_in_a_thread_ends_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def wrong(*arguments: Any, **_: Any) -> Any:
        raise ZeroDivisionError

    show = None
    if where == "on_outcome":
        show = wrong
    else:
        monkeypatch.setattr(f"serpent_ir.restoration.pipeline.{where}", wrong)
    for number in range(10):  # more than wait to be written
        save(folder / f"d{number}.png")
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        run_batch(plan_folder(folder, tmp_path / "out"), invert, on_outcome=show)
    assert threading.active_count() == threads and len(contents(tmp_path / "out")) <= (where == "on_outcome")


def test_earlier_results_survive_a_failure_of_the_same_file(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run_batch(plan_folder(folder, target), invert)
    old = (target / "a.png").read_bytes()
    (folder / "a.png").write_bytes(b"")
    summary = run_batch(plan_folder(folder, target), invert)
    assert "a.png" in [path.source.name for path in summary.failed]
    assert (target / "a.png").read_bytes() == old


def test_a_folder_is_complete_without_failed_and_ignored_files(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png")
    assert run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), invert).complete
    (tmp_path / "in" / "photo.heic").touch()
    assert not run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), invert).complete


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
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
        reading = sys.modules[decode_picture.__module__]
        monkeypatch.setattr(reading, "picture_from_samples", once(reading.picture_from_samples))
    elif where == "transform":
        transform = once(invert)
    else:
        monkeypatch.setattr(write, "to_samples", once(write.to_samples))
    summary = run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), transform)
    assert [outcome.source.name for outcome in summary.done] == ["b.png"]
    assert "not enough memory" in str(summary.failed[0].reason)
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
    for skipped in (0, 2):
        summary = run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), invert, settings={})
        assert [os.fsencode(outcome.source.name) for outcome in summary.failed] == [b"half\xff.png"]
        assert len(summary.skipped) == skipped
    assert sorted(os.listdir(os.fsencode(tmp_path / "out") + b"/\xfe")) == [b"\xff.png"]
    assert sorted(os.listdir(tmp_path / "out")) == [NAME, "a.png", os.fsdecode(b"\xfe")]


# -- batches and what is read ahead --------------------------------------------------------------------------------


def test_pictures_of_equal_size_are_computed_at_once_and_each_gets_its_own_result(tmp_path: Path) -> None:
    """One that fails does not take the others with it."""
    sizes = ((4, 5), (6, 5), (4, 5))
    for number in range(12):
        height, width = sizes[number % 3]
        save(tmp_path / "in" / f"{number:02}{'-fog' * (number == 4)}.png", number / 255, height, width)
    groups: list[int] = []

    def darker(pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        groups.append(len(pictures))
        time.sleep(0.05)  # meanwhile others are read
        batch = torch.stack([picture.pixels for picture in pictures])
        if any("fog" in name for name in names):
            raise RestorationError("fog")
        return [replace(picture, pixels=image / 2) for picture, image in zip(pictures, batch, strict=True)]

    summary = run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), darker, batch=3, threads=2)
    assert max(groups) in (2, 3) and [outcome.source.name for outcome in summary.failed] == ["04-fog.png"]
    for outcome in summary.done:
        number = int(outcome.source.name[:2])
        assert read_image(outcome.target).pixels.mul(255).round().unique().tolist() == [float(round(number / 2))]
        assert (outcome.height, outcome.width) == sizes[number % 3]
    for wrong in ({"batch": 0}, {"workers": 0}, {"threads": 0}):
        with pytest.raises(RangeError):
            run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), darker, **wrong)


def test_reading_ahead_is_bounded_by_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 20 pixels where 45 may wait: two are read before the first is computed, not more."""
    for number in range(6):
        save(tmp_path / "in" / f"{number}.png")
    monkeypatch.setattr("serpent_ir.restoration.batch.PIXELS", 45)
    read: list[str] = []

    def counted(content: bytes, name: str) -> Picture:
        read.append(name)
        return decode_picture(content, name)

    seen: list[int] = []

    def slowly(pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        time.sleep(0.1)
        seen.append(len(read))
        return list(pictures)

    monkeypatch.setattr("serpent_ir.restoration.pipeline.decode_picture", counted)
    run_batch(plan_folder(tmp_path / "in", tmp_path / "out"), slowly, batch=2, threads=2)
    assert seen[0] <= 2 and all(now <= 2 * (number + 2) for number, now in enumerate(seen)) and len(read) == 6


def test_a_room_lets_in_who_asked_first() -> None:
    room, order = Room(3, 100), list[int]()
    room.enter(60)

    def ask(pixels: int) -> None:
        room.enter(pixels)
        order.append(pixels)

    threads = []
    for pixels_asked in (1000, 10):  # the large one fits when the room is empty; the small one would at once
        threads.append(threading.Thread(target=ask, args=(pixels_asked,)))
        threads[-1].start()
        time.sleep(0.05)
    assert order == []
    room.leave(60)
    threads[0].join(5)
    assert order == [1000]
    room.close()
    threads[1].join(5)
    assert order == [1000, 10]


def test_sensible_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "one.png", height=400, width=500)
    (tmp_path / "in").mkdir()
    for number in range(20):
        shutil.copy(tmp_path / "one.png", tmp_path / "in" / f"{number}.png")
    plan = plan_folder(tmp_path / "in", tmp_path / "out")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert sensible_workers(plan, torch.device("cuda")) == 1
    for memory, most in ((None, 2), (10**12, 2), (300_000_000, 1)):  # 4 megapixels are work for two
        monkeypatch.setattr("serpent_ir.restoration.batch.affordable", lambda memory=memory: memory)
        assert sensible_workers(plan, torch.device("cpu")) == most
    monkeypatch.setattr("serpent_ir.restoration.batch.affordable", lambda: None)
    monkeypatch.setattr("serpent_ir.restoration.batch.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("serpent_ir.restoration.batch.SHARED_BYTES", 10**18)
    assert sensible_workers(plan, torch.device("cpu")) == 1 and "too little for 2 processes" in caplog.text
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert sensible_workers(plan, torch.device("cpu")) == 1


# -- once more -----------------------------------------------------------------------------------------------------


def again(folder: Path, tmp_path: Path, settings: dict[str, Any] | None = None, **arguments: Any) -> list[str]:
    """Which files a run does that has a journal."""
    plan = plan_folder(folder, tmp_path / "out")
    summary = run_batch(plan, invert, settings={"seed": 1} if settings is None else settings, **arguments)
    assert len(summary.outcomes) == 6 and {outcome.source.name for outcome in summary.failed} == {
        "empty.png",
        "half.png",
        "text.png",
    }
    return [outcome.source.name for outcome in summary.done]


def test_what_was_done_is_skipped(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = ["a.png", "c.jpg", "b.tif"]
    assert again(folder, tmp_path) == everything
    before = contents(tmp_path / "out")
    assert again(folder, tmp_path) == [] and contents(tmp_path / "out") == before
    os.utime(folder / "a.png", ns=(0, 5))
    assert again(folder, tmp_path) == ["a.png"]
    (tmp_path / "out" / "c.jpg").write_bytes(b"shorter")
    (tmp_path / "out" / "deep" / "er" / "b.tif").unlink()
    assert again(folder, tmp_path) == ["c.jpg", "b.tif"]
    assert again(folder, tmp_path, again=True) == everything and "anew" not in caplog.text
    assert again(folder, tmp_path, {"seed": 2}) == everything
    assert "holds results of another seed; all are made anew" in caplog.text
    assert again(folder, tmp_path, {"seed": 2}) == []
    assert again(folder, tmp_path, {"seed": 1}) == everything  # though they were done so once, they are not there
    folder.rename(tmp_path / "elsewhere")
    assert again(tmp_path / "elsewhere", tmp_path) == everything
    assert contents(tmp_path / "out") == before


def test_failed_files_are_tried_again(folder: Path, tmp_path: Path) -> None:
    again(folder, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "out" / NAME).read_text().splitlines() if line]
    reasons = [line for line in lines if line.get("status") == "failed"]
    assert sorted(line["source"] for line in reasons) == ["empty.png", "half.png", "text.png"]
    assert all(line["reason"] and "output_size" not in line for line in reasons)
    (folder / "empty.png").write_bytes((folder / "a.png").read_bytes())
    summary = run_batch(plan_folder(folder, tmp_path / "out"), invert, settings={"seed": 1})
    assert [outcome.source.name for outcome in summary.done] == ["empty.png"] and len(summary.skipped) == 3


GARBAGE = (
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"{}",
    b"[1]",
    b'{"settings": 1}',
    b'{"source": "a.png", "size": "x", "mtime_ns": [], "output": null, "output_size": 1.5, "status": "done"}',
    b'{"source": ["a.png"], "size": 1, "mtime_ns": 1, "output": "a.png", "output_size": 1, "status": "done"}',
    b"x" * (3 << 20),
)


@pytest.mark.parametrize("torn", [True, False])
def test_a_journal_that_is_garbage(folder: Path, tmp_path: Path, torn: bool) -> None:
    """Before and behind good lines, with and without a torn last one."""
    journal = tmp_path / "out" / NAME
    journal.parent.mkdir()
    journal.write_bytes(b"\n".join(GARBAGE))
    assert len(again(folder, tmp_path)) == 3
    lines = journal.read_bytes()
    assert again(folder, tmp_path) == []
    if torn:
        journal.write_bytes(lines[: lines.index(b'"done"') + 3])
        assert "a.png" in again(folder, tmp_path)
        assert again(folder, tmp_path) == []
    else:
        journal.write_bytes(lines + b"\n".join(GARBAGE[:4]))
        assert again(folder, tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_a_journal_that_cannot_be_used(
    folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "out" / NAME
    journal.parent.mkdir()
    if kind == "folder":
        journal.mkdir()
    elif kind == "link":
        (tmp_path / "precious").write_text("precious")
        journal.symlink_to(tmp_path / "precious")
    else:
        os.mkfifo(journal)
    for _ in range(2):
        assert len(again(folder, tmp_path)) == 3
    assert "this run cannot be continued later" in caplog.text
    assert kind != "link" or (tmp_path / "precious").read_text() == "precious"


def test_a_full_disk_ends_the_journal_not_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            return super().write(content[:7])

    monkeypatch.setattr("serpent_ir.restoration.journal.io.FileIO", Full)
    assert len(again(folder, tmp_path)) == 3
    assert caplog.text.count("cannot be written") == 1


def test_two_runs_into_one_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serpent_ir.restoration.journal.PATIENCE", 0.1)
    with journal_of(tmp_path / "out", {}), pytest.raises(FileWriteError, match="another run writes into"):
        again(folder, tmp_path)
    assert len(again(folder, tmp_path)) == 3


def test_what_a_killed_run_left_is_removed_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    again(folder, tmp_path)
    (folder / "half.png").write_bytes(b"")
    leftovers = [leftover_name(tmp_path / "out" / name) for name in ("a.png", "deep/er/b.tif", "half.png")]
    for leftover in leftovers:
        leftover.write_text("half")
    others = tmp_path / "out" / ".serpent-0123456789abcdef.part"
    others.touch()
    assert again(folder, tmp_path) == []
    assert not any(leftover.exists() for leftover in leftovers) and others.exists()


def test_ctrl_c_ends_the_threads_and_the_next_run_goes_on(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "in" / f"{number}.png", number / 10)
    plan = plan_folder(tmp_path / "in", tmp_path / "out")
    threads = threading.active_count()

    def interrupted(pictures: Sequence[Picture], names: Sequence[str]) -> list[Picture]:
        if names == ["3.png"]:
            raise KeyboardInterrupt
        return invert(pictures, names)

    done: list[FileOutcome] = []
    with pytest.raises(KeyboardInterrupt):
        run_batch(plan, interrupted, settings={}, on_outcome=done.append)
    assert threading.active_count() == threads
    assert sorted(contents(tmp_path / "out")) == sorted(outcome.source.name for outcome in done)
    summary = run_batch(plan, invert, settings={})
    assert len(summary.skipped) == len(done) and len(summary.done) == 6 - len(done)
    run_batch(plan_folder(tmp_path / "in", tmp_path / "alone"), invert)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
