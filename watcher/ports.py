"""The whole seam between the program and the world: clusters, store, sinks and time."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, TypedDict, Unpack

import msgspec
from msgspec import Struct

from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import Event, Resolution
from watcher.core.ledger import LedgerRow
from watcher.core.message import Message
from watcher.core.model import Baseline, DeploymentSnapshot, Json, Subject
from watcher.core.namespaces import Exclusion
from watcher.core.outbox import Choice
from watcher.core.phases import Pending, Phase
from watcher.core.planning import Audience
from watcher.core.retry import SinkState
from watcher.errors import ClusterError


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> datetime:
        """UTC that never steps: for deadlines."""

    def wall(self) -> datetime:
        """UTC as the machine tells it: for messages and signatures."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        """Return True once the event is set, False once `until` has come."""


class Listed(Struct, frozen=True):
    """A complete list of one scope: it replaces all that was known of it when it was asked for."""

    scope: str
    snapshots: tuple[DeploymentSnapshot, ...]
    asked_at: datetime | None = None
    """By the clock's `now`; None is the moment in which it is taken in."""
    version: str = ""
    rewound_from: str = ""
    """The first list of an older copy of the store: the version that was known before."""
    reason: str = "start"
    """What made it necessary."""


class Applied(Struct, frozen=True, gc=False):
    """One Deployment was added or modified."""

    scope: str
    snapshot: DeploymentSnapshot


class Deleted(Struct, frozen=True, gc=False):
    """One Deployment is gone, or no longer in scope."""

    scope: str
    snapshot: DeploymentSnapshot


class Opened(Struct, frozen=True, gc=False):
    """The watch stream of a scope is open, and what had piled up behind it has been delivered."""

    scope: str


class Broken(Struct, frozen=True):
    """The watch or list of a scope cannot be had; None is the stream's orderly end."""

    scope: str
    error: ClusterError | None


WatchEvent = Listed | Applied | Deleted | Opened | Broken


class Probe(Struct, frozen=True):
    """One heartbeat's answer: `error` is None when the API server answered and let us read."""

    error: ClusterError | None = None
    version: str = ""
    latency: float = 0.0
    """Seconds."""


Shortening = Literal["cut", "silent", "withheld"]


class Stream(Struct):
    """What one list-watch says of itself, the counters since the start of the process."""

    resource_version: str = ""
    """From which the next watch would go on; empty when a list is needed."""
    last_byte_at: datetime | None = None
    """When a watch last delivered anything, or was open and had nothing more, by the clock's `now`."""
    last_bookmark_at: datetime | None = None
    lists: Counter[str] = msgspec.field(default_factory=Counter)
    """How many were begun, by what made them necessary."""
    breaks: Counter[str] = msgspec.field(default_factory=Counter)
    """How many streams and lists ended, by cause; `ended` is the orderly end."""
    bad_lines: int = 0
    rewinds: int = 0
    """How often the store behind the server was found to be an older copy than the one watched."""
    rewound_at: datetime | None = None
    """When it was found last."""
    timeout_seconds: int = 0
    """For how long the newest watch was asked for."""
    shortened_by: Shortening | None = None
    """Why that is less than usual: watches are cut off, fall silent, or are answered at their end."""
    obstacle: str = ""
    """What is known of what does that, and what to do about it."""


Looked = Mapping[str, DeploymentSnapshot | Resolution]
"""By the uid that was asked for what is there under its name now, or else how it ended: `deleted`, or
`left_scope` where only a list by labels may be asked for, and it shows none. Without an answer it is
left out."""


class Cluster(Protocol):
    """One API server: a merged stream of list-watch events, and a heartbeat on its own connection."""

    name: str
    """As configured."""
    excluded: Exclusion
    """Namespaces of which nothing is shown."""
    selective: bool
    """Whether only some Deployments of a scope are shown, so that a deleted one may still be."""

    @property
    def scopes(self) -> Sequence[str]:
        """One name a list-watch: the namespaces, or one empty string for all of them."""

    async def run(self) -> None:
        """List and watch every scope until cancelled; raises nothing else."""

    async def events(self) -> Sequence[WatchEvent]:
        """Wait for news and take all there is, the latest of each Deployment, in order."""

    def stream(self, scope: str) -> Stream:
        """How the scope's list-watch stands now."""

    async def look(self, subjects: Sequence[Subject]) -> Looked:
        """Ask for Deployments as they are now, whatever else is shown; never raises."""

    async def probe(self) -> Probe:
        """Ask whether the server lives and lets us read; never raises."""

    async def close(self) -> None:
        """Give back every connection."""


class Saved(Struct, frozen=True):
    """One subject as the store keeps it."""

    subject: Subject
    phase: Phase
    baseline: Baseline | None = None


class Record(Struct, frozen=True):
    """What one decision changes: all of it in one transaction, or none."""

    saved: tuple[Saved, ...] = ()
    forgotten: tuple[Subject, ...] = ()
    events: tuple[Event, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    debounced: tuple[tuple[Subject, Pending], ...] = ()
    """Faults that were over before their hold was; they are only echoed."""


class Claim(Struct, frozen=True):
    """One delivery taken to be sent, with all that its message needs."""

    delivery: Delivery
    attempts: int
    recorded_at: datetime
    ambiguous: bool
    """An earlier attempt may have arrived."""
    last_error: str
    event: Event
    latest: Event
    """The incident's newest event: posts and edits restate all that is current."""
    thread: Json | None
    """The newest receipt of the incident in this sink."""
    covers: tuple[Event, ...] = ()
    """Events whose deliveries this one supersedes, oldest first, its own included."""
    members: tuple[Event, ...] = ()
    """Of a digest: the newest event of each incident in it."""
    waiting_since: datetime | None = None
    """When the oldest of what it tells was recorded: it is late from then on."""
    redriven_at: datetime | None = None
    """When somebody asked for it once more: its age counts from then."""
    superseded: tuple[Delivery, ...] = ()
    """Deliveries that this very claim has replaced, and nobody will send."""


class Settlement(Struct, frozen=True):
    """The end of one attempt."""

    delivery: str
    state: DeliveryState
    at: datetime
    due: datetime | None = None
    """When to try again, if the state is pending or parked."""
    reason: str = ""
    detail: str = ""
    receipt: Json | None = None
    counted: bool = True
    """Whether the attempt counts (waiting out a 429 or an open breaker does not)."""
    ambiguous: bool = False
    sink: SinkState | None = None
    """How the sink stands after it, if that changed."""


Queued = tuple[str, DeliveryState, int, datetime]
"""Of a sink and an open state: how many rows, and when the oldest was recorded."""


class Wanted(TypedDict, total=False):
    """Which deliveries: what is empty or left out fits all, and of an id its end is enough."""

    since: datetime | None
    until: datetime | None
    namespace: str
    name: str
    sink: str
    incident: str
    delivery: str
    states: Collection[DeliveryState]


class Store(Protocol):
    """The record. Every method is one transaction and raises StoreError when it did not happen."""

    async def acquire(self) -> bool:
        """Become the one process that writes, if there is none; all that follows raises Deposed
        where it would write and another has become it, or where what it builds on is unsure."""

    async def renew(self) -> None:
        """Stay the writer for longer."""

    async def release(self) -> None:
        """Let another process be the writer."""

    async def load(self, cluster: str) -> Sequence[Saved]:
        """All subjects of a cluster, its open digests and itself included."""

    async def clusters(self) -> Sequence[str]:
        """The names of those of which it knows any subject."""

    async def seen_at(self, cluster: str) -> datetime | None:
        """When a process last had the cluster in sight; None before the first time."""

    async def mark_seen(self, cluster: str, at: datetime) -> None:
        """Keep that time."""

    async def record(
        self, record: Record, at: datetime, idle: Collection[str] = ()
    ) -> Mapping[str, Claim]:
        """Commit one decision; an event or delivery whose id is there already is left as it is.

        Each `idle` sink has one delivery of it claimed in the same transaction, as `claim` would, if
        one is due by itself that waits for no other of its incident.
        """

    async def reclaim(self, sink: str, now: datetime, busy: Sequence[str] = ()) -> int:
        """Make rows in flight due again, marked ambiguous, and say how many; parked ones are due too.

        All of them but those of `busy` incidents, which this process is sending.
        """

    async def strand(self, sinks: Sequence[str]) -> Mapping[str, int]:
        """Park what is queued for any other sink than these; says how much for which."""

    async def claim(
        self, sink: str, now: datetime, limit: int, edits_from: datetime | None = None
    ) -> Sequence[Claim]:
        """Take due deliveries, the head of each incident, newest incident first, coalesced.

        A claimed one is in flight until it is settled, or reclaimed by whoever sends next: its
        incident is left alone so long. No edit is taken before `edits_from`.
        """

    async def compact(
        self, sink: str, now: datetime, part: Part, after: str = ""
    ) -> tuple[Sequence[Choice], str]:
        """Settle at once what a claim would supersede: edits, or with posts what follows them.

        Some incidents at a time, from `after` on; returns where to go on, empty at the end.
        """

    async def settle(self, settlement: Settlement) -> None:
        """Write an attempt's end; a delivery that is final already stays as it is."""

    async def sink_state(self, sink: str) -> SinkState:
        """How the sink stood after the last settlement that said so."""

    async def told(self, sink: str, incident: str) -> Sequence[Event]:
        """What the sink has told of an incident, in order: what it took, but for what was UNTOLD."""

    async def standing(self, sink: str, since: datetime) -> Sequence[Sequence[Event]]:
        """The same of each incident that has not ended before; none whose end is yet to be sent."""

    async def next_due(self, sink: str) -> datetime | None:
        """When the sink's next delivery is due that does not wait for one in flight, if any is."""

    async def queue(self) -> Sequence[Queued]:
        """What waits, by sink and state."""

    async def history(self, limit: int = 200, **wanted: Unpack[Wanted]) -> Sequence[LedgerRow]:
        """Deliveries, newest first."""

    async def redrive(
        self, ids: Sequence[str], at: datetime, by: str, *, after_end: bool
    ) -> Sequence[str]:
        """Make those that are given up or parked due again, as the same deliveries; says which.

        Unless `after_end`, none of an incident whose end its sink has: it would open again.
        """

    async def redriven(self) -> Sequence[tuple[str, datetime, str, int]]:
        """Of each sink with open deliveries that were redriven: when last, by whom, how many."""

    async def incidents(
        self, *, still_open: bool = False, namespace: str = "", incident: str = "", limit: int = 100
    ) -> Sequence[Event]:
        """Their newest events, the newest incident first; digests only by their id."""

    async def events(self, incident: str) -> Sequence[Event]:
        """All of one incident, in order."""

    async def prune(self, before: datetime) -> int:
        """Forget some of the incidents that ended before, if nothing of them is left to send."""

    async def ping(self) -> None:
        """Raise StoreError unless the store takes writes."""

    async def close(self) -> None:
        """Finish what runs and let go."""


class Traits(Audience, frozen=True):
    """What the dispatcher must know of a sink, beyond what planning must.

    `chat`: people read it, and openings in a storm are grouped into a digest. `threads`: it can edit
    and reply, and post, edit and reply are deliveries of their own.
    """

    concurrency: int = 4
    rate: float = 0.0
    """Messages a second it may be given, with bursts of five; 0 is unlimited."""
    max_age: timedelta = timedelta(hours=72)
    restated_every: timedelta | None = None
    """It forgets what it is not told again: see `restating`."""


TOLD_AGAIN_FOR: Final = timedelta(minutes=5)
"""An end is told again and again this long: a peer may have been down when it came."""


UNTOLD: Final[Json] = {"untold": True}
"""The receipt of what newer news have overtaken: the sink took it, and nobody was told."""


class Notification(Struct, frozen=True):
    """What a sink is asked to deliver, once."""

    delivery_id: str
    part: Part
    message: Message
    event: Event
    thread: Json | None = None
    plain: bool = False
    """Without any formatting: the richer form was refused."""
    maybe_since: datetime | None = None
    """An earlier attempt may have arrived, after this."""
    told: tuple[Event, ...] = ()
    """What the sink has of the incident, in order, if it is one that is told again and again."""


class Sink(Protocol):
    """Somewhere a notification can be sent. Retrying is not its business."""

    traits: Traits

    async def send(self, notification: Notification) -> Json | None:
        """Deliver, and return the receipt that edits and replies need; raises SinkError."""
