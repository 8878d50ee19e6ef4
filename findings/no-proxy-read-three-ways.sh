#!/usr/bin/env bash
# One NO_PROXY, three readings: what kubectl reaches directly, Python's clients send through the proxy.
#
# Expected: the forms that the Kubernetes world writes into NO_PROXY (ranges, `*.domain`, `name:port`)
#           mean the same to every client on the machine.
# Seen:     golang.org/x/net 0.50.0 (what client-go and kubectl use) goes directly for all four. aiohttp
#           3.14.5 knows neither ranges nor `*.`; requests 2.34.2 knows ranges and no `*.`; both take
#           `name:port` only if the URL spells the port.
# Matters:  to in-cluster clients behind a company's proxy: the API server's address is in a range.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet aiohttp==3.14.5 requests==2.34.2

export HTTPS_PROXY=http://proxy.example:3128
export NO_PROXY='10.0.0.0/8,*.cluster.local,.svc,kubernetes:443'
unset https_proxy no_proxy ALL_PROXY all_proxy REQUEST_METHOD

cat >show.py <<'PYTHON'
import requests
from aiohttp.helpers import get_env_proxy_for_url
from yarl import URL


def with_aiohttp(url):
    try:
        return get_env_proxy_for_url(URL(url))
    except LookupError:
        return None


for url in ("https://10.96.0.1/", "https://api.cluster.local/", "https://api.svc/", "https://kubernetes/"):
    for name, proxy in (("aiohttp", with_aiohttp(url)), ("requests", requests.utils.get_environ_proxies(url))):
        print(url, name, "proxy" if proxy else "direct")
PYTHON
cat >show.go <<'GO'
package main

import (
	"fmt"
	"net/url"

	"golang.org/x/net/http/httpproxy"
)

func main() {
	choose := httpproxy.FromEnvironment().ProxyFunc()
	for _, text := range []string{"https://10.96.0.1/", "https://api.cluster.local/", "https://api.svc/", "https://kubernetes/"} {
		asked, _ := url.Parse(text)
		proxy, _ := choose(asked)
		told := "direct"
		if proxy != nil {
			told = "proxy"
		}
		fmt.Println(text, "Go", told)
	}
}
GO
printf 'module show\n\ngo 1.24.0\n\nrequire golang.org/x/net v0.50.0\n' >go.mod
env -u HTTPS_PROXY -u NO_PROXY go build -mod=mod -o show show.go 2>go.log || { cat go.log; exit 1; }

cat >expected <<'END'
https://10.96.0.1/ aiohttp proxy
https://10.96.0.1/ requests direct
https://api.cluster.local/ aiohttp proxy
https://api.cluster.local/ requests proxy
https://api.svc/ aiohttp direct
https://api.svc/ requests direct
https://kubernetes/ aiohttp proxy
https://kubernetes/ requests proxy
https://10.96.0.1/ Go direct
https://api.cluster.local/ Go direct
https://api.svc/ Go direct
https://kubernetes/ Go direct
END
{ venv/bin/python show.py; ./show; } | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with the versions above" >&2; exit 1; }
