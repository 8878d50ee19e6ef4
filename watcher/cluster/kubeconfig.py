"""The official client's reading of kubeconfigs and service accounts, with its traps disarmed.

It runs exec plugins without a deadline and hides their failure, reads `tokenFile` once, keeps
private keys in temporary files until exit, quotes whole users in its errors, and does not strip
the token of a service account. Those parts are ours.
"""

import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.aio.config import incluster_config, kube_config
from kubernetes.aio.config.config_exception import ConfigException

from watcher.cluster.auth import Access, Endpoint, TokenFile, fixed, sendable
from watcher.cluster.exec_plugin import ExecPlugin
from watcher.errors import ConfigError
from watcher.network import environment_proxy
from watcher.ports import Clock

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
        merged = _official.KubeConfigMerger(paths).config
        if merged is None:
            raise ConfigException("there is no such file")
        loader = _official.KubeConfigLoader(merged, active_context=context, config_base_path=None)
        loader._user = loader._user or _official.ConfigNode("user", {}, loader._cluster.path)
        try:
            loader._load_cluster_info()
            endpoint = _endpoint(vars(loader), environ, strict_x509)
        finally:
            _official._cleanup_temp_files()  # among them private keys
        named = (getattr(loader, key, None) for key in ("ssl_ca_cert", "cert_file", "key_file"))
        files = (*paths.split(os.pathsep), *filter(None, named))
        return Access(
            endpoint,
            _credentials(loader, endpoint, environ, clock),
            tuple(path for path in map(Path, files) if path.exists()),
            loader._current_context["name"],
        )


def _endpoint(found: Mapping[str, Any], environ: Mapping[str, str], strict: bool) -> Endpoint:
    url = found.get("host", "")
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigException("the cluster has no server that starts with https://")
    proxy = found.get("proxy") or environment_proxy(url, environ)
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigException("the proxy must be an http:// or https:// one")
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
    if loader.provider == "oidc":  # the library refreshes it without verifying the issuer's TLS
        return fixed(sendable(f"Bearer {user['auth-provider']['config']['id-token']}"))
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
