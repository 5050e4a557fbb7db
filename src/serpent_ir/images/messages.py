"""Messages of libvips that are no text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyvips

from serpent_ir.errors import ImageReadError


@contextmanager
def named_reading(name: Path | str) -> Iterator[None]:
    """Within the block, a damaged file whose bytes are part of libvips's message is an ImageReadError, too.

    pyvips takes the message for UTF-8 and raises UnicodeDecodeError before it clears it, so that each later error of
    the process, about whatever file, would be one as well.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        pyvips.vips_lib.vips_error_clear()
        raise ImageReadError(
            f"{name} is truncated or damaged", "a whole image file", "Copy or export it once more."
        ) from error
