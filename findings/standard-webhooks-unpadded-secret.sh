#!/usr/bin/env bash
# Two libraries of the Standard Webhooks specification disagree whether a secret without padding is one.
#
# Expected: the specification's own libraries take the same secrets: base64, after `whsec_`.
#           https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
# Seen:     without the final `=`, Python 1.1.0 and JavaScript 1.1.1 sign as with it; Go 0.0.1 refuses it.
# Matters:  to who makes secrets (base64url tools leave the padding away): the sender tries it in one
#           language, and the receiver in another cannot even be constructed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet standardwebhooks==1.1.0
npm install --silent --no-audit --no-fund standardwebhooks@1.1.1 >/dev/null

cat >show.py <<'PYTHON'
from datetime import datetime, timezone

from standardwebhooks import Webhook

for secret in ("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ"):
    print("Python:", Webhook(secret).sign("id", datetime.fromtimestamp(0, timezone.utc), "{}"))
PYTHON
cat >show.mjs <<'JAVASCRIPT'
import { Webhook } from "standardwebhooks";
for (const secret of ["whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ"])
  console.log("JavaScript:", new Webhook(secret).sign("id", new Date(0), "{}"));
JAVASCRIPT
cat >show.go <<'GO'
package main

import (
	"fmt"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
	for _, secret := range []string{"whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ"} {
		webhook, err := webhooks.NewWebhook(secret)
		if err != nil {
			fmt.Println("Go:", err)
			continue
		}
		signature, _ := webhook.Sign("id", time.Unix(0, 0), []byte("{}"))
		fmt.Println("Go:", signature)
	}
}
GO
printf 'module show\n\ngo 1.22\n\nrequire github.com/standard-webhooks/standard-webhooks/libraries v0.0.1\n' >go.mod
go build -mod=mod -o show show.go 2>go.log || { cat go.log; exit 1; }

cat >expected <<'END'
Python: v1,c2j8vsDmHl1haaERbKQ5AgSqLgvHrZqSwz2nr/5/FLs=
Python: v1,c2j8vsDmHl1haaERbKQ5AgSqLgvHrZqSwz2nr/5/FLs=
JavaScript: v1,c2j8vsDmHl1haaERbKQ5AgSqLgvHrZqSwz2nr/5/FLs=
JavaScript: v1,c2j8vsDmHl1haaERbKQ5AgSqLgvHrZqSwz2nr/5/FLs=
Go: v1,c2j8vsDmHl1haaERbKQ5AgSqLgvHrZqSwz2nr/5/FLs=
Go: unable to create webhook, err: illegal base64 data at input byte 24
END
{
  venv/bin/python show.py
  node show.mjs
  ./show
} | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with the versions above" >&2; exit 1; }
