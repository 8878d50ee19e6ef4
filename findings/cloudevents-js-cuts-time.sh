#!/usr/bin/env bash
# The CloudEvents SDK for JavaScript changes the `time` of an event that it only passes on.
#
# Expected: what is parsed and sent on has the attributes of the producer; RFC 3339 sets no limit to the
#           fraction, and the specification has intermediaries forward events unchanged.
# Seen:     cloudevents 10.0.0: `time` goes through a JavaScript Date, in and out: nanoseconds are cut to
#           milliseconds, and another offset becomes UTC; `validate()` says true.
# Matters:  to whoever compares or orders by `time` behind a relay in Node: Go and Python keep all of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

npm install --silent --no-audit --no-fund cloudevents@10.0.0 >/dev/null

cat >show.mjs <<'JAVASCRIPT'
import pkg from "cloudevents";
const { HTTP } = pkg;
for (const time of ["2026-12-01T12:00:00.123456789Z", "2026-12-01T14:00:00+02:00"]) {
  const body = JSON.stringify({ specversion: "1.0", id: "1", source: "/shop", type: "test", time });
  const event = HTTP.toEvent({ headers: { "content-type": "application/cloudevents+json" }, body });
  console.log(time, "->", JSON.parse(HTTP.structured(event).body).time, event.validate());
}
JAVASCRIPT

cat >expected <<'END'
2026-12-01T12:00:00.123456789Z -> 2026-12-01T12:00:00.123Z true
2026-12-01T14:00:00+02:00 -> 2026-12-01T12:00:00.000Z true
END
node show.mjs | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with cloudevents 10.0.0" >&2; exit 1; }
