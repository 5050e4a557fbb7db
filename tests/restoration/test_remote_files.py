"""Images behind URLs: which they are, where their results go, writing whole files, and the journal there."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from serpent_ir.errors import DataError, ImageReadError, ImageWriteError, MissingExtraError
from serpent_ir.restoration import remote_journal
from serpent_ir.restoration.journal import NAME
from serpent_ir.restoration.outcome import FileOutcome
from serpent_ir.restoration.plan import Job, Naming, plan_folder
from serpent_ir.restoration.remote_files import Anywhere, Url, listing, place_of, plan_anywhere, stamps_of

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def objects() -> fsspec.AbstractFileSystem:
    """An object store that is empty."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return memory


NAMES = ("B/x.JPG", "a b/ä%20.png", "a b/ä%20.gif", "c.tif", "notes.txt", ".thumbs/d.png", "e/.f.png")


def test_a_folder_behind_a_url_is_planned_as_one_of_files(tmp_path: Path, objects: fsspec.AbstractFileSystem) -> None:
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
        objects.pipe(f"/store/in/{name}", b"x")
    objects.pipe("/store/input/not-in-it.png", b"x")
    for naming in (Naming(), Naming(".jpg")):
        expected = plan_folder(tmp_path / "in", tmp_path / "out", naming)
        pairs = {(job.name, job.target.relative_to(tmp_path / "out").as_posix()) for job in expected.jobs}
        for source in ("memory://store/in", "memory://store/in/", f"file://{tmp_path}/in"):
            for target in ("memory://store/out/", str(tmp_path / "out")):
                plan = plan_anywhere(place_of(source), place_of(target), naming)
                folder = plan.target
                found = {(job.name, str(job.target).removeprefix(f"{folder}".rstrip("/") + "/")) for job in plan.jobs}
                assert found == pairs
                assert [str(path).rpartition("/")[2] for path in plan.ignored] == ["notes.txt"]
        assert str(place_of(f"file://{tmp_path}/in")) == f"{tmp_path}/in"


def test_names_of_objects_that_are_no_paths_are_ignored(tmp_path: Path, objects: fsspec.AbstractFileSystem) -> None:
    """A result never lies outside of the folder for results."""
    for name in ("a.png", "../up.png", "b/../../up.png", "c//d.png", "zero\0.png"):
        objects.store[f"/in/{name}"] = objects.store.get("/in/a.png") or objects.pipe(f"/in/{name}", b"x")
        objects.pipe(f"/in/{name}", b"x")
    plan = plan_anywhere(Url("memory://in"), tmp_path)
    assert [job.target for job in plan.jobs] == [tmp_path / "a.png"]
    assert plan.ignored and all("//d.png" in str(path) or "\0" in str(path) for path in plan.ignored)


def test_what_cannot_be_planned(tmp_path: Path, objects: fsspec.AbstractFileSystem) -> None:
    objects.pipe("/in/notes.txt", b"x")
    with pytest.raises(DataError, match="memory://in holds no image among 1 files"):
        plan_anywhere(Url("memory://in"), tmp_path)
    with pytest.raises(DataError, match="memory://nowhere holds no image among 0 files"):
        plan_anywhere(Url("memory://nowhere"), tmp_path)
    for one, other in (("in", "in"), ("in", "in/out"), ("in/out/", "in")):
        with pytest.raises(ImageWriteError, match=r"one of the folders .* lies in the other"):
            plan_anywhere(Url(f"memory://{one}"), Url(f"simplecache::memory://{other}"))
    with pytest.raises(DataError, match=r"fog://in cannot be listed .*[Pp]rotocol"):
        plan_anywhere(Url("fog://in"), tmp_path)


def test_what_gives_access_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    url = Url("sftp://me:secret@host/in?key=secret")
    assert str(url / "what?.png") == "sftp://host/in/what?.png"

    def refuse(location: str) -> None:
        raise OSError(f"no access to {location}")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(ImageReadError, match=r"sftp://host/in/a.png cannot be read") as error:
        (url / "a.png").read()
    assert "secret" not in str(error.value)
    with pytest.raises(ImageReadError, match=r"https://host/my folder/a.png cannot be read") as error:
        (Url("https://host/my folder?key=sec ret") / "a.png").read()
    assert "ret" not in str(error.value)


@pytest.mark.parametrize(
    "beginning", ["file://", "FILE://", "local://", "simplecache::file://", "filecache::cached::file://"]
)
def test_folders_of_this_machine_are_paths_whatever_they_are_called(beginning: str, tmp_path: Path) -> None:
    """Else a source could be replaced by its result, and a worker could take a relative path for another."""
    assert place_of(f"{beginning}{tmp_path}/in") == tmp_path / "in" and place_of(f"{beginning}in") == Path("in")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    with pytest.raises(ImageWriteError, match=r"lies in the input folder"):
        plan_anywhere(place_of(f"{beginning}{tmp_path}/in"), tmp_path / "in" / "out")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(location: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(MissingExtraError, match=r"s3://bucket needs a package that is not installed \(Install s3fs"):
        listing(Url("s3://bucket"))


@pytest.mark.parametrize("kind", ["memory://out", "simplecache::file://{folder}"])
def test_a_file_is_there_whole_or_not_at_all(
    kind: str, tmp_path: Path, objects: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a write can stop half way, it is made under another, hidden name."""
    folder = Url(kind.format(folder=tmp_path))
    place = folder / "b c" / "ä.png"

    def files() -> dict[str, bytes]:
        """Not as `simplecache` reads them, once and for all."""
        if kind.startswith("memory"):
            return {path: objects.cat(path) for path in objects.find("/")}
        return {f"/out/{path.relative_to(tmp_path)}": path.read_bytes() for path in tmp_path.rglob("*.*")}

    place.write(b"old")
    assert place.exists() and place.read() == b"old"
    place.write(b"newer")
    assert files() == {"/out/b c/ä.png": b"newer"}

    def fail(*arguments: object) -> None:
        raise OSError("broken pipe")

    step = "memory.MemoryFileSystem.pipe_file" if kind.startswith("memory") else "local.LocalFileSystem.mv"
    monkeypatch.setattr(f"fsspec.implementations.{step}", fail)
    with pytest.raises(ImageWriteError, match=r"ä.png cannot be written \(OSError: broken pipe\)"):
        place.write(b"newest")
    assert files() == {"/out/b c/ä.png": b"newer"}


def test_the_journal_of_a_folder_behind_a_url(
    objects: fsspec.AbstractFileSystem, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later run finds what was done, unless source, result or settings are others; one that is stopped, too."""
    for name in ("a.png", "b.png", "c.png"):
        objects.pipe(f"/in/{name}", b"source")
    source, target = Url("memory://in"), Url("memory://out")
    plan = plan_anywhere(source, target)

    def known(settings: dict[str, int], again: bool = False) -> list[str]:
        with remote_journal.remote_journal_of(target, settings, again, stamps_of(plan)) as journal:
            return [job.name for job in plan.jobs if journal.has(job)]

    def do(job: Job[Anywhere], stop: bool = False) -> None:
        stamp = stamps_of(plan)
        with remote_journal.remote_journal_of(target, {"seed": 1}, False, stamp) as journal:
            job.target.write(b"result")  # type: ignore[union-attr]
            journal.record(FileOutcome(job, "done", stamp=stamp(job.source), written=6))
            if stop:
                raise KeyboardInterrupt

    assert known({"seed": 1}) == []
    do(plan.jobs[0])
    with pytest.raises(KeyboardInterrupt):
        do(plan.jobs[1], stop=True)
    assert known({"seed": 1}) == ["a.png", "b.png"] and NAME in listing(target)
    objects.pipe("/in/a.png", b"another source")
    objects.pipe("/out/b.png", b"half")
    assert known({"seed": 1}) == []
    do(plan.jobs[2])
    assert known({"seed": 1}) == ["c.png"] and known({"seed": 2}) == []
    assert "holds results of another seed; all are made anew" in caplog.text

    class Full(io.FileIO):
        def write(self, content: object) -> int:
            raise OSError("the disk is full")

    monkeypatch.setattr(io, "FileIO", Full)
    assert known({"seed": 3}) == [] and "cannot be written (the disk is full)" in caplog.text
    monkeypatch.undo()

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(type(objects), "pipe_file", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    assert known({"seed": 3}) == []
    assert "memory://out/.serpent-journal.jsonl cannot be written now" in caplog.text and "no room" in caplog.text
