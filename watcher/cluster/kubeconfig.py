"""The official client's reading of kubeconfigs and service accounts, with its traps disarmed.

It runs exec plugins without a deadline and hides their failure, reads `tokenFile` once, keeps
private keys in temporary files until exit, quotes whole users in its errors, and does not strip
the token of a service account. Those parts are ours.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.aio.config import incluster_config, kube_config
from kubernetes.aio.config.config_exception import ConfigException

from watcher.cluster.auth import (
    Access,
    Credentials,
    Endpoint,
    Fixed,
    TokenFile,
    bearer,
    environment_proxy,
    is_token,
    tls_context,
)
from watcher.cluster.exec_plugin import ExecPlugin
from watcher.config.secrets import hide
from watcher.errors import ConfigError
from watcher.ports import Clock

_official: Any = kube_config
"""It has no type annotations."""
_in_pod: Any = incluster_config


def in_cluster(folder: Path, environ: Mapping[str, str], clock: Clock, strict_x509: bool) -> Access:
    """Use the service account that Kubernetes mounts into a pod."""
    found = SimpleNamespace(api_key={})
    files = (str(folder / "token"), str(folder / "ca.crt"))
    with _told(str(folder)):
        _in_pod.InClusterConfigLoader(*files, environ=environ).load_and_set(found)
        tls = tls_context(found.ssl_ca_cert, strict=strict_x509)
        endpoint = Endpoint(found.host, tls, _proxy(None, found.host, environ))
        return Access(endpoint, TokenFile(folder / "token", clock))


def from_files(
    paths: Sequence[Path],
    context: str | None,
    environ: Mapping[str, str],
    clock: Clock,
    strict_x509: bool,
) -> Access:
    """Use a context of these kubeconfigs, by default the current one; missing ones are left out."""
    with _told(f"kubeconfig {os.pathsep.join(map(str, paths))}"):
        existing = [path for path in paths if path.exists()]
        if not existing:
            raise ConfigException("there is no such file")
        for path in existing:
            if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
                raise ConfigException("this is no kubeconfig")
        merged = _official.KubeConfigMerger(os.pathsep.join(map(str, existing))).config
        loader = _official.KubeConfigLoader(merged, active_context=context, config_base_path=None)
        if loader._user is None:
            loader._user = _official.ConfigNode("user", {}, loader._cluster.path)
        try:
            endpoint = _endpoint(loader, environ, strict_x509)
        finally:
            _official._cleanup_temp_files()  # among them private keys
        return Access(endpoint, _credentials(loader, endpoint, environ, clock))


def _endpoint(loader: Any, environ: Mapping[str, str], strict_x509: bool) -> Endpoint:  # noqa: ANN401
    loader._load_cluster_info()
    found = vars(loader)
    url = found.get("host", "")
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigException("the cluster has no server that starts with https://")
    proxy = _proxy(found.get("proxy"), url, environ)
    if url.startswith("http:"):
        return Endpoint(url, None, proxy)
    tls = tls_context(
        found["ssl_ca_cert"],
        found["cert_file"],
        found["key_file"],
        verify=found.get("verify_ssl", True),
        strict=strict_x509,
    )
    return Endpoint(url, tls, proxy, found.get("tls_server_name"))


def _credentials(
    loader: Any,  # noqa: ANN401
    endpoint: Endpoint,
    environ: Mapping[str, str],
    clock: Clock,
) -> Credentials:
    user: dict[str, Any] = loader._user.value
    folder = Path(loader._get_base_path(loader._user.path))
    if user.get("tokenFile"):
        return TokenFile(folder / user["tokenFile"], clock)
    if loader._load_user_token() or loader._load_user_pass_token() or "token" in vars(loader):
        if not is_token(loader.token):
            raise ConfigException("the user's token has characters that no header can have")
        hide(loader.token.partition(" ")[2])
        return Fixed(loader.token)
    if "exec" in user:
        about = loader._cluster.value if user["exec"].get("provideClusterInfo") else None
        return ExecPlugin(user["exec"], folder, environ, clock, endpoint.tls, about)
    if loader.provider == "oidc":  # the library refreshes it without verifying the issuer's TLS
        return Fixed(bearer(user["auth-provider"]["config"]["id-token"]))
    if loader.provider is not None:
        raise ConfigException("this auth-provider is not supported; use an exec plugin")
    return Fixed()


def _proxy(configured: str | None, url: str, environ: Mapping[str, str]) -> str | None:
    proxy = configured or environment_proxy(url, environ)
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigException("the proxy must be an http:// or https:// one")
    return proxy


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn every complaint into one line that names the place and quotes no secret."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError([f"{place}: {line}{error.problem or 'this is no YAML'}"]) from None
    except OSError as error:
        raise ConfigError([f"{place}: {error.strerror or error}"]) from None
    except ConfigException as error:  # behind a brace it quotes whole users, tokens included
        reason = str(error).partition("{")[0].strip()
        raise ConfigError([f"{place}: {reason}"]) from None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError([f"{place}: this is no kubeconfig"]) from None
