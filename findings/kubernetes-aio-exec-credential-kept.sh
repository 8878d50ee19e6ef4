#!/usr/bin/env bash
# The official Python client's asyncio half never runs an exec plugin again: its token is kept for ever.
#
# Expected: a credential with an expirationTimestamp is asked for anew once it has expired, as client-go
#           and the same package's synchronous half do.
#           https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
# Seen:     kubernetes 37.0.2: three requests, each after the token's two seconds are over. `kubernetes.client`
#           brings a new token each time, `kubernetes.aio` the first one three times; its plugin ran once.
# Matters:  to what runs for longer than a token lives (EKS 15 minutes, GKE an hour): it ends in 401s.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet kubernetes==37.0.2

cat >plugin <<'PLUGIN'
#!/usr/bin/env python3
import json, pathlib, time
runs = pathlib.Path("runs")
runs.write_text(str(int(runs.read_text()) + 1))
until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
status = {"token": f"token-{runs.read_text()}", "expirationTimestamp": until}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
PLUGIN
chmod +x plugin

cat >show.py <<'PYTHON'
import asyncio
import json
import pathlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.client
import kubernetes.config

EXPIRED = 4  # seconds, for a token of two
NAMES = ("major minor gitVersion gitCommit gitTreeState buildDate goVersion compiler platform").split()
seen = []


class Version(BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append(self.headers["Authorization"])
        body = json.dumps(dict.fromkeys(NAMES, "")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def synchronous():
    kubernetes.config.load_kube_config("kubeconfig")
    api = kubernetes.client.VersionApi()
    for _ in range(3):
        api.get_code()
        time.sleep(EXPIRED)


async def asynchronous():
    await kubernetes.aio.config.load_kube_config("kubeconfig")
    async with kubernetes.aio.client.ApiClient() as client:
        api = kubernetes.aio.client.VersionApi(client)
        for _ in range(3):
            await api.get_code()
            await asyncio.sleep(EXPIRED)


server = ThreadingHTTPServer(("127.0.0.1", 0), Version)
threading.Thread(target=server.serve_forever, daemon=True).start()
plugin = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": str(pathlib.Path("plugin").resolve()),
    "interactiveMode": "Never",
}
config = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "test",
    "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
    "users": [{"name": "test", "user": {"exec": plugin}}],
    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
}
pathlib.Path("kubeconfig").write_text(json.dumps(config))
for name, run in (("kubernetes", synchronous), ("kubernetes.aio", lambda: asyncio.run(asynchronous()))):
    seen.clear()
    pathlib.Path("runs").write_text("0")
    run()
    print(f"{name}: {len(set(seen))} tokens in {len(seen)} requests")
PYTHON

cat >expected <<'END'
kubernetes: 3 tokens in 3 requests
kubernetes.aio: 1 tokens in 3 requests
END
venv/bin/python show.py | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with kubernetes 37.0.2" >&2; exit 1; }
