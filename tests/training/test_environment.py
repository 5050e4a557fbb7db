from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from serpent_ir.training import environment as module
from serpent_ir.training.environment import environment, source_changes


def test_the_command_is_shown_without_what_gives_access(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://me:secret@host/a.tar?key=secret"
    monkeypatch.setattr("sys.argv", ["serpent", "train", "--data", url, f"--val={url}", "--run", "what?"])
    shown = "https://host/a.tar"
    assert environment()["command"] == ["serpent", "train", "--data", shown, f"--val={shown}", "--run", "what?"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_commit_is_named_where_git_knows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(module, "SOURCE", tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "environment.py"))
    (tmp_path / "environment.py").touch()
    assert environment()["commit"] is None
    git("init")
    git("commit", "--allow-empty", "--message", "a repository that the package was installed in")
    assert environment()["commit"] is None
    git("add", "environment.py")
    git("commit", "--message", "its own repository")
    assert environment()["commit"] == git("rev-parse", "HEAD")
    assert source_changes() is None

    commit = git("rev-parse", "HEAD")
    (tmp_path / ".gitignore").write_text("*.so\n.gitignore\n")
    (tmp_path / "ignored.so").touch()
    assert (environment()["commit"], source_changes()) == (commit, None)
    source = tmp_path / "naïve 'source'"
    source.mkdir()
    (source / "new.py").write_text("x = 1\n")
    (source / "weights").write_bytes(bytes(range(256)))
    assert environment()["commit"] == f"{commit}+changes"
    monkeypatch.setattr(module, "SOURCE", source)
    assert environment()["commit"] == f"{commit}+changes"
    patch = source_changes()
    assert patch is not None and "Binary files" in patch and "weights" in patch
    (source / "new.py").unlink()
    (tmp_path / "patch").write_text(patch)
    git("apply", "--include=*new.py", "patch")
    assert (source / "new.py").read_text() == "x = 1\n"
