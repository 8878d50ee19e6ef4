"""Does the record add up with what the receiver has got? Says every reason why not."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from tests.outside import Taken
from watcher.clock import SystemClock
from watcher.core.delivery import DeliveryState
from watcher.core.ledger import LedgerRow, Verification
from watcher.stores.database import open_store, reading
from watcher.stores.ledger import followed, kept


async def problems(url: str, taken: Sequence[Taken], kills: int) -> list[str]:
    """Of a watcher that has been killed so often, and that has nothing left to say.

    That the store fails is told without a record.
    """
    taken = [one for one in taken if not one.told.startswith("store.")]
    store = open_store(url)
    try:
        rows = await store.history(limit=1_000_000)
    finally:
        await store.close()
    return [
        *_of_record(url, rows),
        *_of_receiver(rows, taken),
        *_of_order(taken),
        *_doubles(taken, kills),
    ]


def _of_record(url: str, rows: Sequence[LedgerRow]) -> Iterator[str]:
    """What `watcher audit verify` finds, and what is not delivered or not over although all is said."""
    now = SystemClock().wall()
    with reading(url) as (db, alive):
        check = Verification(followed(db), now, now - timedelta(days=1), alive=alive)
        for found in check.verify(kept(db)):
            yield f"{found.incident} {found.problem}"
        told = {row.event.incident for row in rows}  # its own troubles are told to nobody else
        yield from (f"{each} is still open" for each in sorted(followed(db) & told))
    for row in rows:
        if row.delivery.state is not DeliveryState.DELIVERED:
            yield f"{row.event.id} is {row.delivery.state}"


def _of_receiver(rows: Iterable[LedgerRow], taken: Iterable[Taken]) -> Iterator[str]:
    told, known = {one.id for one in taken}, {row.delivery.id for row in rows}
    yield from (f"{each} was never received" for each in known - told)
    yield from (f"{each} is not on record" for each in told - known)
    events = defaultdict[str, set[str]](set)
    for one in taken:
        events[one.id].add(one.body["id"])
    yield from (f"{each} stood for {ids}" for each, ids in events.items() if len(ids) > 1)


def _of_order(taken: Iterable[Taken]) -> Iterator[str]:
    newest = defaultdict[str, str](str)
    for one in taken:
        incident, sequence = one.body["partitionkey"], one.body["sequence"]
        if sequence < newest[incident]:
            yield f"{incident}: {sequence} came after {newest[incident]}"
        newest[incident] = sequence


def _doubles(taken: Sequence[Taken], kills: int) -> Iterator[str]:
    doubles = len(taken) - len({one.id for one in taken})
    if doubles > kills:
        yield f"{doubles} doubles by {kills} kills"
