from __future__ import annotations

import json
import platform

import pytest
import torch

from serpent_ir.machine import accelerator_name, describe_machine, package_version


def test_describes_processor_and_versions_but_not_the_place() -> None:
    machine = describe_machine()
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"] == package_version("torch")
    assert torch.__version__.startswith(machine["versions"]["torch"].partition("+")[0])
    assert machine["versions"]["serpent-ir"]
    assert machine["python"] == platform.python_version()
    text = json.dumps(machine)
    assert platform.node() not in text


@pytest.mark.parametrize(
    ("names", "name"),
    [([], None), (["Loom"], "Loom"), (["Loom", "Loom"], "Loom"), (["Loom", "Spindle"], "cuda:0 Loom, cuda:1 Spindle")],
)
def test_accelerators_that_differ_are_told_apart(names: list[str], name: str | None) -> None:
    assert accelerator_name(names) == name


def test_a_missing_package_has_no_version() -> None:
    assert package_version("no-such-package-here") is None
