"""The official client's reading of kubeconfigs and service accounts, with its traps disarmed.

It runs exec plugins without a deadline and hides their failure, reads `tokenFile` once, keeps
private keys in temporary files until exit, quotes whole users in its errors, and does not strip
the token of a service account. Those parts are ours.
"""

import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.aio.config import incluster_config, kube_config
from kubernetes.aio.config.config_exception import ConfigException

from watcher.cluster.auth import Access, Endpoint, TokenFile, fixed, sendable
from watcher.cluster.exec_plugin import ExecPlugin
from watcher.cluster.id_token import IdToken
from watcher.config.secrets import hide
from watcher.errors import ConfigError
from watcher.network import environment_proxy
from watcher.ports import Clock
from watcher.socks import check_proxy

_SHOWN = 20
"""Contexts that are named where another one was asked for."""
_Untyped = Any
_official: _Untyped = kube_config
_in_pod: _Untyped = incluster_config
logging.getLogger(kube_config.__name__).setLevel(logging.CRITICAL)  # what is wrong we say, once


def in_cluster(folder: Path, environ: Mapping[str, str], strict_x509: bool) -> Access:
    """Use the service account that Kubernetes mounts into a pod."""
    with _told(str(folder)):
        files = (str(folder / "token"), str(folder / "ca.crt"))
        loader = _in_pod.InClusterConfigLoader(*files, environ=environ)
        loader._load_config()
        endpoint = _endpoint(vars(loader), environ, strict_x509)
        return Access(endpoint, TokenFile(folder / "token").header, (folder / "ca.crt",))


def from_files(
    paths: str, context: str | None, environ: Mapping[str, str], clock: Clock, strict_x509: bool
) -> Access:
    """Use a context of these kubeconfigs, by default the current one; missing ones are left out."""
    with _told(f"kubeconfig {paths}"):
        named = [Path(path).expanduser() for path in paths.split(os.pathsep) if path]
        if not (there := [path for path in named if path.exists()]):
            raise ConfigException("there is no such file")
        merged = _merge(there)
        node = _official.ConfigNode("kube-config", merged, str(there[0]))
        wanted = _context(merged, context)
        loader = _official.KubeConfigLoader(node, active_context=wanted, config_base_path=None)
        loader._user = loader._user or _official.ConfigNode("user", {}, loader._cluster.path)
        try:
            loader._load_cluster_info()
            endpoint = _endpoint(vars(loader), environ, strict_x509)
        finally:
            _official._cleanup_temp_files()  # among them private keys
        keys = (getattr(loader, key, None) for key in ("ssl_ca_cert", "cert_file", "key_file"))
        files = (*there, *(path for path in map(Path, filter(None, keys)) if path.exists()))
        return Access(endpoint, _credentials(loader, endpoint, environ, clock), files, wanted)


def _merge(files: Sequence[Path]) -> dict[str, Any]:
    """Make one configuration of the files: the first to set a value or a name wins, as with kubectl.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/ has the
    rules. An empty file sets nothing.
    """
    current = ""
    found: dict[str, dict[str, _Untyped]] = {"clusters": {}, "contexts": {}, "users": {}}
    contents = [(file, yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files]
    if all(config is None for _, config in contents):
        raise ConfigException("this is no kubeconfig: it is empty")
    for file, config in contents:
        if config is None:
            continue
        current = current or config.get("current-context") or ""
        for kind, known in found.items():
            for item in config.get(kind) or ():
                if kind == "users" and item.get("user") is None:
                    item["user"] = _no_credentials(item)
                node = _official.ConfigNode(f"{kind}/{item['name']}", _set(item), str(file))
                known.setdefault(item["name"], node)
    return {
        "current-context": current,
        **{kind: [*known.values()] for kind, known in found.items()},
    }


def _set(item: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is null, and so not set."""
    return {
        key: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
        for key, value in item.items()
    }


def _no_credentials(user: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a user without `user` has; raises ConfigException if it only stands a level too high."""
    if user.keys() - {"name", "user"}:
        raise ConfigException(
            f"user {user['name']}: what it has beside its name belongs under `user`"
        )
    return {}


def _context(merged: Mapping[str, Any], asked: str | None) -> str:
    """Give the name of the context to use; raises ConfigException, which says what there is."""
    names = [context["name"] for context in merged["contexts"]]
    there = f"there are: {', '.join(names[:_SHOWN])}" if names else "there are none"
    wanted: str = asked or merged["current-context"]
    if not wanted:
        raise ConfigException(
            f"no context is current (current-context is not set), and none was asked for; {there}"
        )
    if wanted not in names:
        raise ConfigException(f"no context is called {wanted}; {there}")
    return wanted


def _endpoint(found: Mapping[str, Any], environ: Mapping[str, str], strict: bool) -> Endpoint:
    url = found.get("host", "")
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigException("the cluster has no server that starts with https://")
    proxy = _proxy(found.get("proxy") or environment_proxy(url, environ))
    if url.startswith("http:"):
        return Endpoint(url, None, proxy)
    tls = ssl.create_default_context(cafile=found["ssl_ca_cert"])
    if not strict:
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not found.get("verify_ssl", True):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if found.get("cert_file"):
        tls.load_cert_chain(found["cert_file"], found["key_file"])
    return Endpoint(url, tls, proxy, found.get("tls_server_name"))


def _proxy(proxy: str | None) -> str | None:
    """Return it if connections can go through it; raises ConfigException, which quotes nothing of it."""
    if proxy:
        if "@" in proxy:
            hide(proxy)
        try:
            check_proxy(proxy)
        except ValueError as error:
            raise ConfigException(str(error)) from None
    return proxy or None


def _credentials(
    loader: _Untyped, endpoint: Endpoint, environ: Mapping[str, str], clock: Clock
) -> Callable[[], Awaitable[str]]:
    user: dict[str, Any] = loader._user.value
    folder = Path(loader._get_base_path(loader._user.path))
    if user.get("tokenFile"):
        return TokenFile(folder / user["tokenFile"]).header
    if loader._load_user_token() or loader._load_user_pass_token():
        return fixed(sendable(loader.token))
    if "exec" in user:
        about = loader._cluster.value if user["exec"].get("provideClusterInfo") else None
        return ExecPlugin(user["exec"], folder, environ, clock, endpoint.tls, about).header
    if loader.provider == "oidc":
        return IdToken(user["auth-provider"].get("config"), clock).header
    if loader.provider is not None:
        raise ConfigException("this auth-provider is not supported; use an exec plugin")
    return fixed("")


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn every complaint into one line that names the place and quotes no secret."""
    try:
        yield
    except ConfigError as error:
        why = str(error)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        why = f"{line}{error.problem or 'this is no YAML'}"
    except OSError as error:
        why = error.strerror or str(error)
    except ConfigException as error:  # behind a brace it quotes whole users, tokens included
        why = str(error).partition("{")[0].strip()
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        why = "this is no kubeconfig"
    else:
        return
    raise ConfigError([f"{place}: {why}"])
