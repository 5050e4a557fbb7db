"""The kernels pass a GPU's compiler, which demands more than the interpreter; its code is as lean as it was."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", "3.3")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_code.py"
ALL = {"carry", "convolve", "convolve_backward", "gate", "gate_backward", "gradients", "outputs", "summarise"}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks at what Triton's tools for x86-64 say")
def test_compiled_code(tmp_path: Path) -> None:
    """A tile has 4 steps and a thread 4 channels of them: 16 exponentials, which are worth 128 instructions."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path / "cache")
    command = [sys.executable, str(SCRIPT), "--quick", "--output", str(tmp_path / "code.json")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    (kernels,) = json.loads((tmp_path / "code.json").read_text())["kernels"].values()
    assert set(kernels) == ALL | {"summarise states"}
    for name in ALL - {"gradients"}:
        assert kernels[name]["stack_bytes"] == 0, name
    assert kernels["gradients"]["stack_bytes"] <= 128
    for name in ("summarise states", "outputs"):
        over_states = kernels[name]["loops"][0]
        assert over_states["MUFU"] == 16 and over_states["SHFL"] == 0
        assert over_states["instructions"] <= 8 * 16
