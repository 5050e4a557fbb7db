# The compiled module (csrc/module.cpp), which type checkers cannot see.
from typing import Any

def __getattr__(name: str) -> Any: ...
