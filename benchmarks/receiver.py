"""Takes webhooks as a process of its own: prints its port, and when so many different ones have come."""

import asyncio
import sys
import time

from aiohttp import web


async def serve(count: int) -> None:
    """Answer until killed."""
    seen = set[str]()

    async def take(request: web.Request) -> web.Response:
        await request.read()
        seen.add(request.headers["webhook-id"])
        if len(seen) == count:
            print(time.time(), flush=True)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
