from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serpent_ir.python_process import command_of


def test_files_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the file of the user was imported')")
    (tmp_path / "serpent_ir.py").write_text("raise SystemExit('the file of the user was imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    command = command_of("serpent_ir.cli.main")
    program = command[-1].replace("main()", "import random; print(sys.argv[1:], main.__module__)")
    completed = subprocess.run([*command[:-1], program, "a b"], capture_output=True, text=True, check=False)
    assert completed.stdout == "['a b'] serpent_ir.cli.main\n", completed.stderr
