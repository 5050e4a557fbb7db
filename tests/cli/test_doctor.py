from __future__ import annotations

import pytest
from typer.testing import CliRunner

from serpent_ir.cli.main import app
from serpent_ir.ops import native
from serpent_ir.ops.backends import ENVIRONMENT_VARIABLE


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def row(output: str, name: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(name))


@pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")
def test_says_what_runs_and_why() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "native: the compiled kernels" in row(result.stdout, "runs on cpu")
    assert "baseline" in row(result.stdout, "compiled kernels")


def test_says_why_native_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", "not built on this machine")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "not available: not built on this machine" in row(result.stdout, "native on cpu")
    assert "portable: native is not available" in row(result.stdout, "runs on cpu")


def test_an_impossible_wish_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", "not built")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "native")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert f"asked for by {ENVIRONMENT_VARIABLE}" in row(result.stdout, "runs on cpu")
