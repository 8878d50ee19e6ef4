"""An error page that a proxy gave in place of an API's answer → its words."""

import re
from html import unescape
from typing import Final

_PAGE: Final = re.compile(r"\s*<(?:!doctype\s+html|html|head|title|body|center|div|h1|p)\b", re.I)
_UNREAD: Final = re.compile(
    r"<(script|style|template|noscript)\b.*?(?:</\1\b[^<>]*>|\Z)|<!--.*?(?:-->|\Z)", re.I | re.S
)
_INLINE: Final = re.compile(r"</?(?:a|b|code|em|font|i|span|strong|tt|wbr)\b[^<>]*>", re.I)
_TAG: Final = re.compile(r"</?[a-z!?][^<>]*(?:>|\Z)", re.I)
_READ: Final = 8192
"""Characters of a page that are looked at: what it says of an error stands at its top."""


def without_tags(text: str) -> str:
    """The words of an HTML page, a title that its heading repeats once; any other text as it is.

    No parser: the standard library's raises on some pages, and takes seconds for others.
    """
    if not _PAGE.match(text):
        return text
    pieces = _TAG.split(_INLINE.sub("", _UNREAD.sub("<p>", text[:_READ])))
    words = [" ".join(unescape(piece).split()) for piece in pieces]
    said = [word for word in words if word]
    return " ".join(word for n, word in enumerate(said) if word not in said[max(n - 1, 0) : n])
