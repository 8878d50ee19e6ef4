"""Slack's markup and limits, and nowhere else: a Message becomes `text` and `blocks`.

Nothing that comes from outside is ever put where Slack looks for markup: blocks hold it as
`plain_text` or rich_text elements, which are literal. The one mrkdwn text, the time in the reader's
zone, is made of our own characters. Limits: https://docs.slack.dev/reference/block-kit/blocks and
delivery reference §1.2; they count UTF-16 units, the strictest reading of "characters".
"""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace
from slack_sdk.models import blocks as kit

from watcher.core import words
from watcher.core.message import Message, visible
from watcher.core.model import Json

TEXT_LIMIT: Final = 4000
"""chat.update refuses more."""
HEADER_LIMIT: Final = 150
CARD_LINES: Final = 4000
LIST_LINES: Final = 7600
"""Units that a list may have in a message with all the rest, or alone: 10,000 altogether."""
_WHY_LIMIT: Final = 1200
_LINE_LIMIT: Final = 300
_IN_FULL: Final = 5
_FACTS: Final = 10
_FACT_LIMIT: Final = 160
_NOTES: Final = 4
_SIGILS: Final = {"U": "@", "W": "@", "S": "!subteam^"}
"""How Slack writes a mention of an id; without one it is a word, such as `here`."""


def render(message: Message, *, brief: bool = False, mention: Sequence[str] = ()) -> Json:
    """One Slack message, checked by slack_sdk: a card, or in a thread no more than the news.

    `mention` are those to call, from the configuration and nowhere else.
    """
    blocks = [*(_news(message) if brief else _card(message))]
    if mention:
        whom = kit.MarkdownTextObject(text=_called(mention), verbatim=True)
        blocks.append(kit.SectionBlock(text=whom))
    return {**plain(message), "blocks": [block.to_dict() for block in blocks]}


def plain(message: Message, mention: Sequence[str] = ()) -> Json:
    """Only the literal text: what phones and screen readers get, and a refused message becomes."""
    room = TEXT_LIMIT - units(_called(mention)) - 1
    said = escape(clip(visible(message.text, 40_000), room)) or "…"
    return {
        "text": f"{_called(mention)} {said}" if mention else said,
        "mrkdwn": False,
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def summary(message: Message) -> Message:
    """The first lines of a long list: its thread has them all."""
    shown = pages(replace(message, lines=message.lines[: words.NAMES_SHOWN]))[0].lines
    rest = len(message.lines) - len(shown)
    more = (f"+{rest} more {'line' if rest == 1 else 'lines'} in the thread",) if rest else ()
    return replace(message, lines=(*shown, *more))


def compact(message: Message) -> Message:
    """Where a list takes several messages: its first lines, then names, so that they are few."""
    if len(pages(message)) == 1:
        return message
    names: dict[str, list[str]] = {}
    for group, name in message.briefly[_IN_FULL:]:
        names.setdefault(f"{group}: ", []).append(name)
    rows = [
        row
        for group, members in names.items()
        for row in textwrap.wrap(
            ", ".join(members), _LINE_LIMIT, initial_indent=group, subsequent_indent=group,
            break_long_words=False, break_on_hyphens=False,
        )
    ]  # fmt: skip
    return replace(message, lines=(*message.lines[:_IN_FULL], *rows))


def pages(message: Message, room: int = CARD_LINES) -> Sequence[Message]:
    """Spread a long list over several messages, so that every line of it can be read."""
    groups: list[list[str]] = [[]]
    for line in (clip(visible(line), _LINE_LIMIT) or "…" for line in message.lines):
        room -= units(line)
        if room < 0 and groups[-1]:
            groups.append([])
            room = LIST_LINES - units(line)
        groups[-1].append(line)
    first, *others = groups
    return [
        replace(message, lines=tuple(first)),
        *(_page(message, f"{n} of {len(groups)}", lines) for n, lines in enumerate(others, 2)),
    ]


def _page(message: Message, number: str, lines: Sequence[str]) -> Message:
    title = f"{message.title} ({number})"
    said = f"{title}: {'; '.join(lines)}"
    return replace(message, line=title, text=said, why="", lines=tuple(lines), broadcast=False)


class Unsent:
    """How far the pages of a list have come that was cut short: the next attempt goes on there.

    Of the last such delivery, in memory: otherwise a list begins anew.
    """

    def __init__(self) -> None:
        self._sent: dict[str, int] = {}

    def pages(
        self, delivery: str, pages: Sequence[Message], arrived: int = 0
    ) -> Iterator[tuple[int, Message]]:
        """Those left to send, numbered from 0; asking for the next one says that one has arrived."""
        for number in range(max(self._sent.get(delivery, 0), arrived), len(pages)):
            yield number, pages[number]
            self._sent = {delivery: number + 1}
        self._sent = {}


def escape(text: str) -> str:
    """Make text inert where Slack parses it: these three are all its control characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def units(text: str) -> int:
    """UTF-16 units, as escaping leaves them."""
    return len(escape(text).encode("utf-16-le", "replace")) // 2


def clip(text: str, limit: int) -> str:
    """Cut to `limit` units and say how much is gone; a character and its marks stay together."""
    if units(text) <= limit:
        return text
    keep = _prefix(text, limit - len("… (+9999999 more)"))
    return f"{text[:keep].rstrip()}… (+{len(text) - keep} more)"


def clip_middle(text: str, limit: int) -> str:
    """Cut from the middle: both ends of a long name tell it from others."""
    if units(text) <= limit:
        return text
    head, tail = (_prefix(end, (limit - 1) // 2) for end in (text, text[::-1]))
    return f"{text[:head]}…{text[len(text) - tail :]}"


def _prefix(text: str, room: int) -> int:
    """How many characters fit into `room` units."""
    for at, character in enumerate(text):
        room -= units(character)
        if room < 0:
            while at > 0 and unicodedata.combining(text[at]):
                at -= 1
            return at
    return len(text)


def _called(mention: Sequence[str]) -> str:
    return " ".join(f"<{_SIGILS.get(whom[0], '!')}{whom}>" for whom in mention)


def _card(message: Message) -> Iterator[kit.Block]:
    """The incident's own message: what it is, since when, the facts, why, what to run first."""
    headline = visible(f"{message.symbol} {message.title}") or "…"
    yield kit.HeaderBlock(text=_literal(clip_middle(headline, HEADER_LIMIT)))
    if message.since is not None:
        since = kit.MarkdownTextObject(text=f"*Since* {_date(message.since)}", verbatim=True)
        yield kit.SectionBlock(text=since)
    body = [_facts(message)] if message.facts else []
    body += _why(message)
    if command := clip(visible(message.command), _WHY_LIMIT):
        body.append(kit.RichTextPreformattedElement(elements=[_text(command)]))
    if body := body + _list(message):
        yield kit.RichTextBlock(elements=body)
    notes = [clip(visible(note), _LINE_LIMIT) for note in message.notes[:_NOTES]]
    if elements := [_literal(note) for note in notes if note]:
        yield kit.ContextBlock(elements=elements)


def _news(message: Message) -> Iterator[kit.Block]:
    """One entry of the thread, complete in itself since it may be broadcast to the channel."""
    said = clip(visible(f"{message.symbol} {message.line or message.text}"), _WHY_LIMIT) or "…"
    news = kit.RichTextSectionElement(elements=[_text(said)])
    yield kit.RichTextBlock(elements=[news, *_why(message), *_list(message)])


def _facts(message: Message) -> kit.RichTextElement:
    parts: list[kit.RichTextElement] = []
    for fact in message.facts[:_FACTS]:
        label, value = clip(visible(fact.label), 40), clip_middle(visible(fact.value), _FACT_LIMIT)
        parts += [_text(f"{label}: ", bold=True), _text(f"{value}\n")]
    return kit.RichTextSectionElement(elements=parts)


def _why(message: Message) -> list[kit.RichTextElement]:
    why = clip(visible(message.why), _WHY_LIMIT)
    return [kit.RichTextQuoteElement(elements=[_text(why)])] if why else []


def _list(message: Message) -> list[kit.RichTextElement]:
    rows = [kit.RichTextSectionElement(elements=[_text(line)]) for line in message.lines]
    return [kit.RichTextListElement(style="bullet", elements=rows)] if rows else []


def _literal(text: str) -> kit.PlainTextObject:
    return kit.PlainTextObject(text=text, emoji=False)


def _text(text: str, bold: bool | None = None) -> kit.RichTextElement:
    style = kit.RichTextElementParts.TextStyle(bold=True) if bold else None
    return kit.RichTextElementParts.Text(text=text, style=style)


def _date(moment: datetime) -> str:
    """A time that each reader sees in their own zone, with UTC where that is not understood."""
    fallback = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time}}|{fallback}>"
