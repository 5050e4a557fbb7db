"""The machine and the versions a measurement was made with."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from serpent_ir import __version__

PACKAGES = ("torch", "numpy", "pyvips", "safetensors")

HUGE_PAGES_VARIABLE = "THP_MEM_ALLOC_ENABLE"
"""Set to 1 before torch is imported, torch asks for huge pages: with small ones large images spend much time on page
faults (Linux)."""


def describe_machine() -> dict[str, Any]:
    """Processor, cores, threads that torch uses, accelerator, operating system, and versions; no names of places."""
    import torch

    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": accelerator_name(accelerators),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"serpent-ir": __version__, **{package: package_version(package) for package in PACKAGES}},
    }


def accelerator_name(names: list[str]) -> str | None:
    """The name that all devices share, else each with its device; None when there are none."""
    if len(set(names)) <= 1:
        return next(iter(names), None)
    return ", ".join(f"cuda:{index} {name}" for index, name in enumerate(names))


def processor_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture.

    On Linux with family and model: a virtual machine says "AMD EPYC" of any generation.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.partition(":") for line in cpuinfo.read_text(errors="replace").splitlines()]
        facts = {name.strip(): value.strip() for name, _, value in reversed(lines)}
        numbers = [f"{name.split()[-1]} {facts[name]}" for name in ("cpu family", "model") if name in facts]
        if "model name" in facts:
            return ", ".join([facts["model name"], *numbers])
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def package_version(package: str) -> str | None:
    """The installed version, None when the package is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def seconds_of_others() -> float | None:
    """Processor seconds that other processes, and other virtual machines, have had so far; None where Linux is not."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, stat.read_text().split()[1:9])
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
