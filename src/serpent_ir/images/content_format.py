"""Which format the content of an image file has."""

from __future__ import annotations

import re

SUFFIXES = {
    rb"\x89PNG": ".png",
    rb"\xff\xd8\xff": ".jpg",
    rb"II[*+]\0|MM\0[*+]": ".tif",
    rb"RIFF....WEBP": ".webp",
    rb"GIF8": ".gif",
    rb"....ftyp": ".avif",
}


def suffix_of_content(content: bytes) -> str:
    """The suffix that a file of such content has; that of PNG where it is none that `read_image` knows."""
    return next((suffix for begin, suffix in SUFFIXES.items() if re.match(begin, content, re.DOTALL)), ".png")
