#!/usr/bin/env bash
# The Standard Webhooks library for Python signs another moment when a datetime is not in UTC.
#
# Expected: an aware datetime is a moment, whatever its zone: equal datetimes get equal signatures.
# Seen:     standardwebhooks 1.1.0: `sign` replaces the zone by UTC instead of converting, so the signature of
#           noon in UTC+2 is that of noon in UTC. The library's own `verify` refuses it beside the true time.
# Matters:  to senders in a local zone (`datetime.now().astimezone()`): it passes on machines that run in
#           UTC, such as CI, and nobody can verify it elsewhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet standardwebhooks==1.1.0

cat >show.py <<'PYTHON'
from datetime import datetime, timedelta, timezone

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=")
utc = datetime.now(timezone.utc).replace(microsecond=0)
for at in (utc, utc.astimezone(timezone(timedelta(hours=2)))):
    signature = webhook.sign("id", at, "{}")
    stamp = str(int(at.timestamp()))
    headers = {"webhook-id": "id", "webhook-timestamp": stamp, "webhook-signature": signature}
    try:
        told = webhook.verify("{}", headers)
    except WebhookVerificationError as error:
        told = error
    print(f"{at.tzname()}, the same moment {at == utc}: {told}")
PYTHON

cat >expected <<'END'
UTC, the same moment True: {}
UTC+02:00, the same moment True: No matching signature found
END
venv/bin/python show.py | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with standardwebhooks 1.1.0" >&2; exit 1; }
