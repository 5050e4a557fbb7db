from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from serpent_ir.training import environment as module
from serpent_ir.training.environment import environment


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
