"""Follows every Kubernetes Deployment and tells who must know when one is degraded or recovered."""

from importlib.metadata import version

__version__ = version("deployment-watcher")
