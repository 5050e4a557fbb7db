"""The `serpent` command as a whole: what it lists, and how errors end it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from serpent_ir import __version__
from serpent_ir.cli.main import app, with_exit_status
from serpent_ir.errors import ShapeError

COMMANDS = ("restore", "degrade", "evaluate", "models", "profile", "train", "reproduce", "data", "doctor")


def run_serpent(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "from serpent_ir.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def run_wrapped(error: BaseException) -> int:
    """The exit code of a command that raises `error`."""

    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        with_exit_status(command)()
    return caught.value.exit_code


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"serpent {__version__}\n")


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    rows = re.findall(r"^\W*(\w+)  +\w", result.stdout, re.MULTILINE)  # a border, the name, what it does
    assert sorted(COMMANDS) == sorted(typer.main.get_command(app).commands) == sorted(rows)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_no_part_of_a_help_text_is_taken_for_markup() -> None:
    """Of "[default: 3]" in a help text nothing would be shown."""

    def texts(command: Any) -> Iterator[str]:
        yield command.help or ""
        for parameter in command.params:
            yield from (text for name in ("help", "show_default") if isinstance(text := getattr(parameter, name), str))
        for inner in getattr(command, "commands", {}).values():
            yield from texts(inner)

    found = [text for text in texts(typer.main.get_command(app)) if text]
    assert len(found) > 80 and [Text.from_markup(text).plain for text in found] == found


def test_a_named_error_is_one_line_and_status_2() -> None:
    completed = run_serpent("restore", "no-such-picture.png")
    assert completed.returncode == 2
    assert completed.stdout == ""
    assert completed.stderr.startswith("error: no-such-picture.png")
    assert "Traceback" not in completed.stderr


def test_a_traceback_when_asked_for() -> None:
    completed = run_serpent("restore", "no-such-picture.png", SERPENT_TRACEBACK="1")
    assert completed.returncode == 1
    assert "Traceback" in completed.stderr and "ImageReadError" in completed.stderr


def test_exit_status_of_errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERPENT_TRACEBACK", raising=False)
    assert run_wrapped(ShapeError("a line", "a square", "Draw a square.")) == 2
    assert capsys.readouterr().err == "error: a line; expected a square. Draw a square.\n"
    assert run_wrapped(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert run_wrapped(ZeroDivisionError("division by zero")) == 70
    assert "unexpected ZeroDivisionError: division by zero" in capsys.readouterr().err
    assert run_wrapped(typer.Exit(1)) == 1


def test_train_takes_fields_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that `serpent train` does not know reach the recipe's parser, which names the one it refuses."""
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["train", "--no_such_field", "3"])
    assert result.exit_code == 2
    assert "no_such_field" in result.output
