"""Clusters that were followed once and are not configured any more: their incidents are told the end."""

from collections.abc import Callable, Collection, Sequence

from watcher.core import transitions
from watcher.core.model import Resolution
from watcher.core.planning import Audience, Draft
from watcher.ports import Clock, Record, Store
from watcher.recording import Recorder


async def close_departed(
    watched: Collection[str],
    store: Store,
    clock: Clock,
    audiences: Sequence[Audience],
    committed: Callable[[Record], None],
) -> None:
    """Close what is open of every other cluster, and forget it. Raises StoreError."""
    for name in await store.clusters():
        if name in watched or not name:  # the watcher's own have none
            continue
        now = clock.now()
        saved = await store.load(name)
        recorder = Recorder(name, store, audiences, committed, lambda _: None)
        recorder.restore(saved)
        drafts = []
        for row in saved:
            if not row.subject.is_digest:  # it ends with the last of its incidents
                phase, transition = transitions.close(row.phase, Resolution.NOT_WATCHED, now)
                drafts.append(Draft(row.subject, phase, transition=transition, forget=True))
        await recorder.commit(drafts, now)
