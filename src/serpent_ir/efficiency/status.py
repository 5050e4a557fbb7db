"""What can become of a cell."""

from __future__ import annotations

MEASURED = "measured"
COUNTED = "counted"
OUT_OF_MEMORY = "out of memory"
OVER_TIME_LIMIT = "over the time limit"
FAILED = "failed"
NOT_RUN = "not run"

BEYOND_A_LIMIT = (OUT_OF_MEMORY, OVER_TIME_LIMIT)
FINISHED = (MEASURED, *BEYOND_A_LIMIT)
