"""`watcher check`: one look at Deployments, live or from a file, without memory of what was before.

One object at one instant: no time rule applies, so what is on its way counts as progressing, and
what was just scaled up looks like what has lost pods: it counts as degraded, and the row says so.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import yaml
from msgspec.structs import replace

from watcher.cluster.decode import snapshot_from
from watcher.core import annotations
from watcher.core.health import assess, fault_asserted_at
from watcher.core.model import Assessment, Baseline, DeploymentSnapshot, Health
from watcher.core.policy import HealthPolicy
from watcher.core.words import at, readable
from watcher.errors import Unreachable, WatcherError
from watcher.ports import Broken, Cluster, Listed
from watcher.web.deployments import Report, report, row

_LIST_SECONDS: Final = 60.0
_CLUSTER: Final = "default"
_IGNORED: Final = "ignored"
_NO_MEMORY: Final = "one look cannot tell whether it lost pods or was just scaled up"
_YAML: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def judge(
    snapshots: Iterable[DeploymentSnapshot], now: datetime, grace: timedelta, *, fresh: bool = True
) -> Report:
    """Judge each as it is now; of the policy only `scale_up_grace` shows, in the words.

    Without `fresh` some that were asked for could not be had.
    """
    rows = []
    for snapshot in snapshots:
        verdict = assess(snapshot, Baseline(), now, HealthPolicy())
        verdict = _with_doubt(snapshot, verdict, now, grace)
        if annotations.read(snapshot.annotations).ignore:
            message = f"ignored by its annotation; {verdict.message}"
            verdict = replace(verdict, reason=_IGNORED, message=message)
        rows.append(row(snapshot, verdict, fault_asserted_at(snapshot, verdict)))
    return report(rows, now, fresh=fresh)


def _with_doubt(
    s: DeploymentSnapshot, verdict: Assessment, now: datetime, grace: timedelta
) -> Assessment:
    """Say what a memory of the object would tell, and since when it may have been scaled up."""
    if verdict.reason not in ("none_available", "below_minimum") or s.paused:
        return verdict
    words, turned = f"{verdict.message}; {_NO_MEMORY}", fault_asserted_at(s, verdict)
    if turned is not None and timedelta(0) <= now - turned < grace:
        words += f"; Available turned False {readable(now - turned)} ago, at {at(turned, now)}"
    return replace(verdict, message=words)


def exit_code(answer: Report) -> int:
    """By `health`, without what is to be ignored: 1 some degraded, else 2 some unknown, else 0."""
    healths = {row.health for row in answer.deployments if row.reason != _IGNORED}
    if Health.DEGRADED in healths:
        return 1
    return 2 if Health.UNKNOWN in healths else 0


async def live(cluster: Cluster) -> Mapping[str, Sequence[DeploymentSnapshot]]:
    """List every scope once and give what is in each; raises ClusterError."""
    lists: dict[str, Sequence[DeploymentSnapshot]] = {}
    watch = asyncio.create_task(cluster.run())
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            while len(lists) < len(cluster.scopes):
                for event in await cluster.events():
                    if isinstance(event, Listed):
                        lists[event.scope] = event.snapshots
                    elif isinstance(event, Broken) and event.error is not None:
                        raise event.error
    except TimeoutError:
        raise Unreachable(f"no complete list within {_LIST_SECONDS:.0f} s") from None
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await cluster.close()
    return lists


def from_text(text: str, place: str) -> list[DeploymentSnapshot]:
    """Read a List, one Deployment, JSON lines of Deployments, or YAML of any of these.

    Objects of another kind are passed over. Raises WatcherError, with `place` and line in it.
    """
    found: list[Any] = []
    documents = _documents(text, place)
    for document in documents:
        match document:
            case [*items] | {"items": [*items]}:
                found += items
            case {"items": None}:
                pass
            case dict() if "items" not in document:
                found.append(document)
            case _:
                raise WatcherError(f"{place}: neither a Deployment nor a list of them")
    kinds = (item.get("kind") if isinstance(item, dict) else None for item in found)
    mine = [item for item, kind in zip(found, kinds, strict=True) if kind in ("Deployment", None)]
    if not mine and (found or not documents):
        raise WatcherError(f"{place}: there is no Deployment in it")
    return [snapshot_from(item, _CLUSTER) for item in mine]


def _documents(text: str, place: str) -> list[Any]:
    try:
        if text.lstrip().startswith(("{", "[")):
            return _json(text)
        return [document for document in yaml.load_all(text, _YAML) if document is not None]
    except json.JSONDecodeError as error:
        where = f"{place}:{error.lineno}:{error.colno}"
        raise WatcherError(f"{where}: not JSON: {error.msg.lower()}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
        raise WatcherError(f"{where}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise WatcherError(f"{place}: neither JSON nor YAML that can be read") from None


def _json(text: str) -> list[Any]:
    """One value or many, a value a line or not; raises JSONDecodeError with its place."""
    found, at = [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        else:
            value, at = json.JSONDecoder().raw_decode(text, at)
            found.append(value)
    return found
