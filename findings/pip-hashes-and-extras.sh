#!/usr/bin/env bash
# A complete lock with hashes stops installing when a new release appears, by a pip that is still shipped.
#
# Expected: a list of `name==version --hash=…` that names every package installs today as it did when it was
#           written. https://pip.pypa.io/en/stable/topics/secure-installs/#hash-checking-mode
# Seen:     pip 23.2.1, which Python 3.11 brings: pytest-cov asks for coverage[toml], the lock pins
#           coverage; the extra counts as another candidate, the newest release of it is taken and then
#           refused for want of a pin. pip 26.3 carries the pin over. `--no-deps` installs it with both.
# Matters:  to every image and CI that installs a lock: it breaks on the day of somebody's release.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

for version in 23.2.1 26.3; do
  python3 -m venv "pip-$version"
  "pip-$version/bin/python" -m pip install --quiet "pip==$version"
done

pip-26.3/bin/pip download --quiet --no-deps --only-binary :all: --dest wheels \
  pytest-cov==7.0.0 coverage==7.13.0 pytest==9.0.0 pluggy==1.6.0 iniconfig==2.3.0 packaging==25.0 pygments==2.19.2
for wheel in wheels/*.whl; do
  name=${wheel#wheels/}
  version=${name#*-}
  echo "${name%%-*}==${version%%-*} --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1)" >>lock.txt
done

try() { # with a version of pip, and options
  local version=$1
  shift
  if "pip-$version/bin/pip" install --quiet --dry-run --require-hashes "$@" -r lock.txt 2>log; then
    echo "pip $version${1:+ $1}: installs"
  else
    echo "pip $version${1:+ $1}: $(grep -o 'coverage\[toml\]' log | head -1) is not pinned"
  fi
}

cat >expected <<'END'
pip 23.2.1: coverage[toml] is not pinned
pip 26.3: installs
pip 23.2.1 --no-deps: installs
pip 26.3 --no-deps: installs
END
{
  try 23.2.1
  try 26.3
  try 23.2.1 --no-deps
  try 26.3 --no-deps
} | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with pip 23.2.1 and 26.3" >&2; exit 1; }
