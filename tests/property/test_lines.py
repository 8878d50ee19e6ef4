"""However a stream is cut into chunks, the same lines come out."""

from hypothesis import given
from hypothesis import strategies as st

from watcher.cluster.watch import LineBuffer

NASTY = st.text("a\r\u0085\u2028\u2603\U0001f600", max_size=6).map(str.encode)


@given(st.lists(NASTY), NASTY, st.data())
def test_chunk_borders_do_not_matter(lines, rest, data):
    """W18, W19: lines end at 0x0A only, wherever the chunks end, and the rest is known as such."""
    stream = b"".join(line + b"\n" for line in lines) + rest
    buffer, seen, start = LineBuffer(1000), list[bytes](), 0
    while start < len(stream):
        end = data.draw(st.integers(start + 1, len(stream)))
        seen += buffer.feed(stream[start:end])
        start = end
    assert seen == lines
    assert buffer.unfinished is bool(rest)


def test_a_line_that_does_not_end_is_noticed():
    """W20: memory is bounded by the limit, whatever the server sends."""
    buffer = LineBuffer(10)
    assert buffer.feed(b"12345\n12345") == [b"12345"]
    assert not buffer.overlong
    assert buffer.feed(b"678901") == []
    assert buffer.overlong
