from __future__ import annotations

import importlib
import importlib.util
import sys

import pytest

from serpent_ir.errors import MissingExtraError


@pytest.mark.parametrize("missing", ["lightning", "jsonargparse"])
def test_the_extra_to_install_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    monkeypatch.delitem(sys.modules, "serpent_ir.training", raising=False)
    with pytest.raises(MissingExtraError, match=rf"'{missing}'.*serpent-ir\[train\]"):
        importlib.import_module("serpent_ir.training")
