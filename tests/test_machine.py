from __future__ import annotations

import json
import platform

import torch

from serpent_ir.machine import describe_machine, package_version


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


def test_a_missing_package_has_no_version() -> None:
    assert package_version("no-such-package-here") is None
