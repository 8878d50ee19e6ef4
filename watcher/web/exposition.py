"""In which format a scrape is answered: of those that we write, the one that the scraper prefers."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import exposition
from prometheus_client.registry import Collector

Encoder = Callable[[Collector], bytes]
_WRITTEN: Final = {
    "application/openmetrics-text": ("", "1.0.0"),
    "text/plain": ("", "0.0.4", "1.0.0"),
    "text/*": ("",),
    "*/*": ("",),
}
"""By media range: the versions that we write."""


def negotiate(accept: str) -> tuple[Encoder, str]:
    """Choose by an Accept header, weights included (RFC 9110 §12.5.1): how to write, and its name.

    Whoever asks for nothing that we write gets the plain text format, as from other exporters.
    """
    wanted = sorted(_ranges(accept), key=lambda one: one[0], reverse=True)
    best = next((one for _, one in wanted), "")
    # The library takes the first that it knows, whatever its weight: it is shown no other.
    encode, name = exposition.choose_encoder(best)
    return encode, name


def _ranges(accept: str) -> Iterator[tuple[float, str]]:
    """Each media range that we write and that is not refused, with its weight."""
    for one in accept.split(","):
        kind, *rest = (part.strip() for part in one.split(";"))
        parameters = {name.lower(): value for name, _, value in (p.partition("=") for p in rest)}
        weight = _weight(parameters.get("q", "1"))
        if weight > 0 and parameters.get("version", "") in _WRITTEN.get(kind.lower(), ()):
            yield weight, one


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0
