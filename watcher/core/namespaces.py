"""Which namespaces a watch of the whole cluster leaves out."""

from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct


class Exclusion(Struct, frozen=True):
    """Names of namespaces, and patterns in which `*` is any text and `?` one character."""

    patterns: tuple[str, ...] = ()

    def __contains__(self, namespace: str) -> bool:
        return any(fnmatchcase(namespace, pattern) for pattern in self.patterns)

    @property
    def field_selector(self) -> str:
        """What the API server can leave out by itself, so that it costs nothing: the plain names.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
        """
        names = (pattern for pattern in self.patterns if not {"*", "?"} & {*pattern})
        return ",".join(f"metadata.namespace!={name}" for name in names)


NOTHING: Final = Exclusion()
