from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from serpent_ir.files import printable, replacing, sole_use


def test_the_file_appears_at_the_end_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path and temporary.name.startswith(".") and path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["result"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_failure_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["result"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "result"
    path.touch()
    path.chmod(mode)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_what_the_umask_allows_even_when_the_writer_replaces_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with replacing(tmp_path / "result") as temporary:
        (tmp_path / "private").touch(mode=0o600)
        os.replace(tmp_path / "private", temporary)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "result")]
    assert modes[0] == modes[1]


def test_a_missing_folder_and_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "result"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), replacing(tmp_path / "folder"):
        pass
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_of_any_bytes_and_any_length(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"\xff"), "n" * 255):
        with replacing(tmp_path / name) as temporary:
            temporary.touch()
        assert (tmp_path / name).exists()


def test_printable_names() -> None:
    assert printable("Ünï [1].png") == "Ünï [1].png"
    assert printable("a\x1b[31m\n.png") == r"a\x1b[31m\n.png"
    assert printable(Path("a\udcff.png")) == r"a\udcff.png"


def test_only_one_is_in_a_block_of_sole_use(tmp_path: Path) -> None:
    entered = threading.Event()

    def other() -> None:
        with sole_use(tmp_path / "lock"):
            entered.set()

    waiting = threading.Thread(target=other, daemon=True)
    with sole_use(tmp_path / "lock"):
        waiting.start()
        with pytest.raises(TimeoutError), sole_use(tmp_path / "lock", patience=0.2):
            pass
        assert not entered.is_set()
    assert entered.wait(10)
    waiting.join()
    with sole_use(tmp_path / "lock", patience=0.0):
        pass


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", missing)
    with sole_use(tmp_path / "lock"):
        assert "cannot be locked (No locks available)" in caplog.text
