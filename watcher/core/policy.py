"""The numbers a verdict and a page depend on, as plain values."""

from datetime import timedelta

from msgspec import Struct


class Flapping(Struct, frozen=True):
    """When a subject counts as flapping: after so many cycles or episodes within the window."""

    cycles: int = 3
    """Announced pairs of degraded and recovered."""
    episodes: int = 6
    """Degraded episodes, announced or not, before the one that is told; or with it, if serving was
    below the floor in each and they are as long as its hold together."""
    window: timedelta = timedelta(minutes=30)
    stable: timedelta = timedelta(minutes=15)
    """This long healthy, or steadily degraded, ends it."""


class HealthPolicy(Struct, frozen=True):
    """How long a verdict must hold before anybody is told; the defaults of docs and design."""

    degraded_for: timedelta = timedelta(seconds=60)
    none_available_for: timedelta = timedelta(seconds=30)
    rollout_stalled_for: timedelta = timedelta(seconds=5)
    nothing_serves_for: timedelta = timedelta(minutes=5)
    """Of what served before: however long the rollout strategy would permit it."""
    no_progress_for: timedelta = timedelta(minutes=15)
    scale_up_grace: timedelta = timedelta(minutes=10)
    recovered_for: timedelta = timedelta(seconds=60)
    flapping: Flapping = Flapping()


class ClusterPolicy(Struct, frozen=True):
    """When an API server counts as out of sight."""

    interval: timedelta = timedelta(seconds=15)
    timeout: timedelta = timedelta(seconds=5)
    failures: int = 3
    successes: int = 2
    unauthorized_for: timedelta = timedelta(seconds=60)
    """Of 401, and of 403 before the first success."""
    forbidden_for: timedelta = timedelta(minutes=5)
    """Of 403 after a success: an API server that starts refuses for a while."""
    view_stale_for: timedelta = timedelta(minutes=3)
    throttled_for: timedelta = timedelta(minutes=3)
    stream_silent_for: timedelta = timedelta(seconds=75)
    """A watch stream without a byte for longer shows nothing any more."""
