"""The journal of an output folder behind a URL, where nothing can be appended.

It is kept in a file of this machine, and written whole, once a minute and at the end: a run that is killed does again
what it did in its last minute. It is no lock: nothing keeps two runs out of one folder.
"""

from __future__ import annotations

import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serpent_ir.errors import SerpentError
from serpent_ir.restoration.journal import NAME, Journal
from serpent_ir.restoration.remote_files import Anywhere, Stamp, Url

log = logging.getLogger(__name__)


class RemoteJournal(Journal):
    """A `Journal` of a folder that is a `Url`; `file` holds what is written there."""

    seconds_between_syncs = 60.0

    def sync(self) -> None:
        """Write the whole journal; where that fails, a warning says so, and it is tried again later."""
        if self.file is None:
            return
        place = self.folder / NAME
        try:
            self.file.seek(0)
            place.write(self.file.readall())
        except SerpentError as error:
            log.warning("%s cannot be written now: a run that goes on later may do files again (%s)", place, error)
        self.last_sync = time.monotonic()


@contextmanager
def remote_journal_of(
    folder: Url, settings: Mapping[str, Any], again: bool, stamp: Callable[[Anywhere], Stamp | None]
) -> Iterator[Journal]:
    """`journal_of` for a folder behind a URL. Raises DataError and ImageReadError when it cannot be read."""
    with tempfile.TemporaryDirectory(prefix="serpent-") as beside:
        path, place = Path(beside, NAME), folder / NAME
        path.write_bytes(place.read() if place.exists() else b"")
        with io.FileIO(path, "a+") as file, RemoteJournal(folder, settings, file, stamp).in_use(again) as journal:
            yield journal
