#!/usr/bin/env bash
# Apprise 2 answers notify() with an object that equals neither True nor False nor None.
#
# Expected: True, False, or None when nothing was there to notify, as in every Apprise 1; code that
#           compares (`is True`, `== False`, `is None`) goes on working, or fails loudly.
# Seen:     apprise 2.2.0: an AppriseResult. Its truth is as before; every comparison is False, silently,
#           and "nothing was notified" can no longer be told from a failure by `is None`.
# Matters:  to callers that test `if notify(...) is False: try again`: failures count as sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet apprise==2.2.0

cat >show.py <<'PYTHON'
import logging

import apprise

logging.disable()


@apprise.decorators.notify(on="works")
def works(*_, **__):
    return True


@apprise.decorators.notify(on="fails")
def fails(*_, **__):
    return False


for urls in (["works://"], ["fails://"], []):
    sender = apprise.Apprise()
    for url in urls:
        sender.add(url)
    result = sender.notify(body="text")
    same = [one for one in (True, False, None) if result is one or result == one]
    print(f"{' '.join(urls) or 'nothing'}: {type(result).__name__}, {bool(result)}, the same as {same}")
PYTHON

cat >expected <<'END'
works://: AppriseResult, True, the same as []
fails://: AppriseResult, False, the same as []
nothing: AppriseResult, False, the same as []
END
venv/bin/python show.py 2>&1 | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with apprise 2.2.0" >&2; exit 1; }
