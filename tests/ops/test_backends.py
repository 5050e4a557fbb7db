"""Which backend runs: argument, then use_backend, then the environment, then the device."""

from __future__ import annotations

import shutil
import sys
import types

import pytest
import torch

from serpent_ir.errors import BackendError, UnknownNameError
from serpent_ir.ops import native, selective_scan, triton, use_backend
from serpent_ir.ops.backends import ENVIRONMENT_VARIABLE, Choice, choose

CPU = torch.device("cpu")
needs_native = pytest.mark.skipif(native.unavailable is not None, reason="the compiled part is not installed")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@needs_native
def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(CPU).backend == "native"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "portable")
    assert choose(CPU).backend == "portable"
    with use_backend("native"):
        assert choose(CPU).backend == "native"
        assert choose(CPU, "portable").backend == "portable"
        with use_backend(None):
            assert choose(CPU).backend == "native"
    assert choose(CPU).backend == "portable"


@needs_native
def test_native_cannot_run_on_other_devices() -> None:
    with pytest.raises(BackendError, match="asked for by argument, but cannot run on cuda"):
        choose(torch.device("cuda"), "native")


def test_the_best_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_why_not_installed", lambda: None)
    assert choose(torch.device("cuda")).backend == "triton"
    assert choose(torch.device("cuda"), None, torch.bfloat16).backend == "triton"
    assert choose(torch.device("mps")) == Choice("portable", "no other backend runs on mps")
    double = choose(torch.device("cuda"), None, torch.float64)
    assert double == Choice("portable", "triton is not available: its states are float32, not float64")
    with pytest.raises(BackendError, match="cannot run on cuda: its states are float32"):
        choose(torch.device("cuda"), "triton", torch.float64)
    monkeypatch.setattr(triton, "_why_not_installed", lambda: "it is not installed")
    assert choose(torch.device("cuda")) == Choice("portable", "triton is not available: it is not installed")


@pytest.mark.parametrize(
    ("capability", "hip", "compiler", "problem"),
    [
        ((9, 0), None, "/usr/bin/cc", None),
        ((7, 0), None, "/usr/bin/cc", "the device's compute capability is 7.0, and it needs 7.5"),
        ((7, 0), "6.3", "/usr/bin/cc", None),
        ((9, 0), None, None, "Triton needs a C compiler (cc, gcc or clang) to launch kernels, and there is none"),
    ],
)
def test_devices_and_machines_without_what_triton_needs(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, compiler: str | None, problem: str
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    assert triton._why_not_on.__wrapped__(torch.device("cuda")) == problem


def test_triton_runs_on_the_cpu_only_when_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="cannot run on cpu: it runs on CUDA and ROCm devices, not on cpu"):
        choose(CPU, "triton")


@pytest.mark.parametrize("version", ["3.2.0", "2.1.0+git", "3.6.0", "4.0.1"])
def test_old_versions_of_triton(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = types.ModuleType("triton")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", module)
    problem = triton._why_not_installed.__wrapped__()
    assert (problem is None) == (version in ("3.6.0", "4.0.1"))
    assert problem is None or version in problem


def test_without_the_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", "not built")
    choice = choose(CPU)
    assert (choice.backend, choice.reason) == ("portable", "native is not available: not built")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "native")
    ones = torch.ones(1, 1, 3)
    with pytest.raises(BackendError, match=f"asked for by {ENVIRONMENT_VARIABLE}, but cannot run on cpu: not built"):
        selective_scan(ones, ones, -torch.ones(1, 1), ones, ones)


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="expected one of native, triton, portable"), use_backend("fastest"):
        pass
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "fastest")
    with pytest.raises(UnknownNameError):
        choose(CPU)


@needs_native
def test_instruction_set_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.INSTRUCTION_SET_VARIABLE, raising=False)
    assert native.instruction_set() == native.instruction_sets()[0]
    assert native.instruction_sets()[-1] == "baseline"
    monkeypatch.setenv(native.INSTRUCTION_SET_VARIABLE, "baseline")
    assert native.instruction_set() == "baseline"
    monkeypatch.setenv(native.INSTRUCTION_SET_VARIABLE, "mmx")
    with pytest.raises(BackendError, match="SERPENT_INSTRUCTION_SET=mmx"):
        native.instruction_set()


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_the_compiled_part_is_there_wherever_a_compiler_is() -> None:
    assert native.unavailable is None
