#!/usr/bin/env bash
# aiohttp's client refuses a complete 2xx response when surplus bytes come in the same segment.
#
# Expected: a status that was received is the answer, as for urllib and requests; RFC 9112 section 6.3
#           ends a 204 at its headers and any other message at its Content-Length.
# Seen:     aiohttp 3.14.5 raises ClientResponseError 400 when a body follows a 204, or when
#           Content-Length counts characters and not bytes. The same bytes a moment later: 204 and 200.
# Matters:  to every sender that repeats after an error: the receiver has taken the request already.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet aiohttp==3.14.5 requests==2.34.2

cat >show.py <<'PYTHON'
import asyncio
import urllib.request

import aiohttp
import requests

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
ANSWERS = {
    "a 204 with a body": (b"HTTP/1.1 204 No Content\r\n\r\n", b"ok"),
    "a length in characters": (HEAD + "größe".encode()[:5], "größe".encode()[5:]),
}


def with_urllib(url):
    with urllib.request.urlopen(url) as response:
        return response.status


async def with_aiohttp(url):
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(url) as response:
                return response.status
        except aiohttp.ClientResponseError as error:
            return f"{type(error).__name__} {error.status}"


async def main():
    for name, (answer, surplus) in ANSWERS.items():
        for when, pause in (("at once", 0), ("later", 0.3)):

            async def serve(reader, writer):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer if pause else answer + surplus)
                await writer.drain()
                if pause:
                    await asyncio.sleep(pause)
                    writer.write(surplus)
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            url = "http://127.0.0.1:{}/".format(server.sockets[0].getsockname()[1])
            print(f"{name}, the surplus {when}:", end=" ")
            print("aiohttp", await with_aiohttp(url), end=", ")
            print("requests", (await asyncio.to_thread(requests.get, url)).status_code, end=", ")
            print("urllib", await asyncio.to_thread(with_urllib, url))
            await asyncio.sleep(0.5)
            server.close()


asyncio.run(main())
PYTHON

cat >expected <<'END'
a 204 with a body, the surplus at once: aiohttp ClientResponseError 400, requests 204, urllib 204
a 204 with a body, the surplus later: aiohttp 204, requests 204, urllib 204
a length in characters, the surplus at once: aiohttp ClientResponseError 400, requests 200, urllib 200
a length in characters, the surplus later: aiohttp 200, requests 200, urllib 200
END
venv/bin/python show.py | tee seen

diff "$folder/expected" "$folder/seen" || { echo "not as it was seen with aiohttp 3.14.5" >&2; exit 1; }
