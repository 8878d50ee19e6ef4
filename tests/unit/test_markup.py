"""What is quoted of a proxy's error page: its words, and nothing that has an effect."""

from datetime import UTC, datetime

import pytest

from watcher.core.markup import without_tags
from watcher.errors import SinkError
from watcher.sinks.answers import Answer, check

HAPROXY = (
    "<html><body><h1>503 Service Unavailable</h1>\n"
    "No server is available to handle this request.\n</body></html>\n"
)
NGINX = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    "<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n"
    "</body>\r\n</html>\r\n<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n"
)
STYLED = (
    "<!DOCTYPE html><html><head><style>h1 {color: red}</style><script>x = '<p>'</script></head>"
)

PAGES = {
    "haproxy": (HAPROXY, "503 Service Unavailable No server is available to handle this request."),
    "nginx, whose title is its heading": (NGINX, "502 Bad Gateway nginx/1.22.1"),
    "with style and script": (f"{STYLED}<p>Sorry</p></html>", "Sorry"),
    "cut off within a tag": ("<html><p>Sorry</p><a href='/logi", "Sorry"),
    "cut off within a style": (STYLED[:40] + "h1 {", ""),
    "within a word": ("<p>Bad <b>G</b>ateway<br>of <a href=x>ours</a>", "Bad Gateway of ours"),
    "entities are text": ("<p>&lt;b&gt; &amp; &lt;/p&gt;</p>", "<b> & </p>"),
    "no page": ("upstream < 3 > 2", "upstream < 3 > 2"),
    "text that names a tag": ("no <html> here", "no <html> here"),
    "empty": ("", ""),
}


@pytest.mark.parametrize(("text", "words"), PAGES.values(), ids=PAGES)
def test_words(text: str, words: str) -> None:
    """Of a page its words are left; what is none stays as it is."""
    assert without_tags(text) == words


@pytest.mark.parametrize(
    "piece", ["<!--", "<a ", "<![", "</", "<a b='", "&#", "<script", "<?", "<"]
)
@pytest.mark.timeout(5)
def test_no_page_holds_it_up(piece: str) -> None:
    """A page that is made to be hard to read is read in no time, and not to its end."""
    assert len(without_tags("<html>" + piece * 1_000_000)) <= 8192


def test_a_sink_is_quoted_so_too() -> None:
    """A gateway's page in place of the receiver's answer; a secret in it stays one, also in pieces."""
    url = "https://hooks.example.com/services/T0123/B0456/sEcReT"
    page = f"<html><title>502</title><p>{url} or /services/T0123<wbr>/B0456/sEcReT: no answer</p>"
    with pytest.raises(SinkError) as caught:
        check(Answer(502, {}, page.encode()), datetime(2026, 11, 22, tzinfo=UTC), [url])
    assert caught.value.detail.startswith("HTTP 502: 502 ")
    assert "no answer" in caught.value.detail
    assert "<" not in caught.value.detail
    assert "sEcReT" not in caught.value.detail
