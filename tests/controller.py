"""A small model of the Deployment controller: pods that come up or crash → what its status says, second by second.

After kubernetes/kubernetes pkg/controller/deployment (rolling.go, recreate.go, progress.go,
util/deployment_util.go): how it scales, and when it says that a rollout progresses, is complete or has stalled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.deployments import CREATED, Json, having, stamp, web


@dataclass(frozen=True)
class Pods:
    """How pods of one version behave: ready after `delay`, then in turn so long ready and not."""

    delay: int = 5
    up: int = 10**6
    down: int = 0

    def ready(self, age: int) -> int:
        """For how many seconds it has been ready by then; 0 while it is not."""
        since = age - self.delay
        if since < 0 or self.up == 0:
            return 0
        lap = since % (self.up + self.down)
        return lap + 1 if lap < self.up else 0


@dataclass
class Pod:
    """One of them."""

    version: int
    born: int
    behaves: Pods


@dataclass(frozen=True)
class Change:
    """What somebody does at a moment: roll out a version, want another number, pause, replace by force."""

    at: int
    kind: str
    pods: tuple[Pods, ...] = ()
    """How they behave from then on, in turn."""
    replicas: int = 0


@dataclass
class Controller:
    """A Deployment and its pods. Every second: what is changed, what the pods do, what it does."""

    desired: int
    pods: tuple[Pods, ...] = (Pods(),)
    recreate: bool = False
    unavailable: int = 1
    surge: int = 1
    min_ready: int = 0
    deadline: int = 600
    running: bool = True
    """Whether it has been there, complete, for long; else it is created at second 0."""
    now: int = 0
    _running: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paused = False
        self.uid, self.version, self.generation, self._made = 1, 1, 1, 0
        self.reason, self.moved, self._turned = "NewReplicaSetCreated", 0, 0
        self._status, self._available = (0, 0, 0, 0), False
        self.created = 0
        if self.running:
            self.reason, self.moved, self._turned, self.created = (
                "NewReplicaSetAvailable",
                -900,
                -900,
                CREATED,
            )
            self._running = [Pod(1, -1000, self._next()) for _ in range(self.desired)]
            self._status, self._available = self._count(), True

    @property
    def floor(self) -> int:
        """What has to serve."""
        return self.desired - (0 if self.recreate else min(self.unavailable, self.desired))

    @property
    def serving(self) -> int:
        """What serves."""
        _, _, ready, available = self._status
        return max(ready, available) if self.min_ready else available

    @property
    def level(self) -> tuple[int, int, int, int]:
        """How far its rollout is: updated, ready and available pods, and the old ones as less than none."""
        total, updated, ready, available = self._status
        return updated, ready, available, updated - total

    @property
    def complete(self) -> bool:
        """Whether the rollout is over."""
        return self.reason == "NewReplicaSetAvailable"

    def run(self, changes: Sequence[Change], until: int) -> Iterator[int]:
        """Each second, once it is over."""
        due = list(changes)
        while self.now < until:
            while due and due[0].at <= self.now:
                self._change(due.pop(0))
            self._scale()
            self._tell()
            yield self.now
            self.now += 1

    def object(self) -> Json:
        """As the API shows it now."""
        total, updated, ready, available = self._status
        stalled = self.reason == "ProgressDeadlineExceeded"
        obj = web(
            available, self.desired, updated=updated, total=total, ready=ready,
            unavailable=self.unavailable, surge=self.surge, recreate=self.recreate,
            reason=self.reason, progressing=str(not stalled), moved=self.moved,
            capacity=str(self._available), turned=self._turned, generation=self.generation,
            revision=self.version, min_ready=self.min_ready, deadline=self.deadline,
            paused=self.paused, uid=f"uid-{self.uid}",
        )  # fmt: skip
        return having(obj, metadata__creationTimestamp=stamp(self.created))

    def _next(self) -> Pods:
        self._made += 1
        return self.pods[self._made % len(self.pods)]

    def _change(self, change: Change) -> None:
        self.generation += 1
        match change.kind:
            case "rollout":
                self.pods, self.version = change.pods, self.version + 1
                if not self.recreate:
                    self.reason, self.moved = "NewReplicaSetCreated", self.now
            case "crash":
                self.pods, self.generation = change.pods, self.generation - 1
                for pod in self._running:
                    pod.born, pod.behaves = self.now, self._next()
            case "replace":
                self.pods, self.uid, self.paused = change.pods, self.uid + 1, False
                self._running, self._status, self.version, self.generation = [], (0, 0, 0, 0), 1, 1
                self.reason, self.moved, self._available = "NewReplicaSetCreated", self.now, False
                self._turned = self.created = self.now
            case "scale":
                self.desired = change.replicas
            case _:
                self.paused = change.kind == "pause"

    def _scale(self) -> None:
        new = [pod for pod in self._running if pod.version == self.version]
        old = [pod for pod in self._running if pod.version != self.version]
        if self.paused:  # scaled, and not rolled out
            pass
        elif self.recreate and old:
            self._running = new  # no new ones while an old one is there
            return
        elif old:
            self._roll(new, old)
            return
        missing = self.desired - len(self._running)
        if missing > 0 and not old and not new and self.recreate and self.version > 1:
            self.reason, self.moved = "NewReplicaSetCreated", self.now
        version = self.version if not old else old[0].version
        self._running += [Pod(version, self.now, self._next()) for _ in range(missing)]
        if missing < 0:
            self._running = sorted(self._running, key=self._is_ready, reverse=True)[: self.desired]

    def _roll(self, new: list[Pod], old: list[Pod]) -> None:
        room = self.desired + self.surge - len(self._running)
        more = max(0, min(room, self.desired - len(new)))
        self._running += [Pod(self.version, self.now, self._next()) for _ in range(more)]
        lacking = len(new) + more - sum(map(self._is_available, new))
        may_go = len(self._running) - self.floor - lacking
        for pod in sorted(old, key=self._is_ready):
            spare = sum(map(self._is_available, self._running)) - self.floor
            if may_go > 0 and (spare > 0 or not self._is_available(pod)):
                self._running.remove(pod)
                may_go -= 1

    def _tell(self) -> None:
        was, self._status = self.level, self._count()
        total, updated, _, available = self._status
        if (available >= self.floor) != self._available:
            self._available, self._turned = not self._available, self.now
        if self.paused or (self.complete and total == updated):
            return
        # What its own measure calls progress: a crash loop has it at every lap.
        progress = any(count > before for count, before in zip(self.level, was, strict=True))
        if updated == total == available == self.desired:
            self.reason, self.moved = "NewReplicaSetAvailable", self.now
        elif progress:
            self.reason, self.moved = "ReplicaSetUpdated", self.now
        elif self.now - self.moved > self.deadline and self.reason != "ProgressDeadlineExceeded":
            self.reason, self.moved = "ProgressDeadlineExceeded", self.now

    def _count(self) -> tuple[int, int, int, int]:
        updated = sum(pod.version == self.version for pod in self._running)
        ready, available = (
            map(self._is_ready, self._running),
            map(self._is_available, self._running),
        )
        return len(self._running), updated, sum(ready), sum(available)

    def _is_ready(self, pod: Pod) -> bool:
        return pod.behaves.ready(self.now - pod.born) > 0

    def _is_available(self, pod: Pod) -> bool:
        return pod.behaves.ready(self.now - pod.born) > self.min_ready
