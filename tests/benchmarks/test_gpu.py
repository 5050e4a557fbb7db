"""benchmarks/gpu.py goes through all of its lines that need no GPU, with Triton's interpreter, and writes its file."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

try:
    VERSION = tuple(map(int, importlib.metadata.version("triton").split(".")[:2]))
except importlib.metadata.PackageNotFoundError:
    VERSION = (0, 0)
interpreted = pytest.mark.skipif(
    VERSION < (3, 7), reason="needs triton 3.7: older interpreters fail with numpy of today"
)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str, interpret: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
@interpreted
def test_a_dry_run_measures_every_part(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    result = run("--device", "cpu", "--quick", "--output", str(output))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "left out" not in result.stdout
    content = json.loads(output.read_text())
    assert content["machine"]["versions"]["torch"]
    assert list(content["parts"]) == ["correctness", "scan", "model"]

    correctness, scan, model = content["parts"].values()
    checked = [*correctness["small"], *correctness["real"], *correctness["strips"]]
    assert all(len(cell["errors"]) == 9 and max(cell["errors"].values()) < 1e-2 for cell in checked)
    assert all(cell["bits_equal"] for cell in correctness["real"])
    assert correctness["large"]["forward_finite"] and correctness["large"]["backward_finite"]

    (cell,) = scan["cells"]
    assert cell["rival_left_out"] is None and not cell["left_out_of_passes"]
    for system in ("triton", "mamba, copies made", "mamba, making copies", "portable"):
        for kind in ("forward", "forward_and_backward"):
            assert cell["seconds"][system][kind]["median"] > 0
            assert system == "triton" or math.isfinite(cell["over_triton"][f"{system}, {kind}"]["median"])
    assert cell["elements"] == 4 * 4 * 5 * 1  # directions, pixels, channels, states

    assert set(model["training"]["seconds"]) == {"serpent-h float32", "serpent-h bfloat16"}
    assert all(model[way]["error"] < 1e-4 for way in ("cuda graph", "torch.compile"))


@pytest.mark.slow
@interpreted
def test_a_dry_run_begins_nothing_without_time(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    result = run("--device", "cpu", "--quick", "--seconds", "0", "--output", str(output))
    assert result.returncode == 0, result.stdout + result.stderr
    parts = json.loads(output.read_text())["parts"]
    assert all(cell["left_out"].startswith("time: ") for cell in parts["scan"]["cells"])
    assert parts["model"]["cuda graph"]["left_out"].startswith("time: ")


@pytest.mark.slow
def test_it_says_that_there_is_no_gpu_to_run_on() -> None:
    result = run("--device", "cpu", "--quick", interpret=False)
    assert result.returncode == 1
    assert "the kernels cannot run on cpu" in result.stderr or "triton is not installed" in result.stderr
