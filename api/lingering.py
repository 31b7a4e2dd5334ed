"""Lets an answer reach a client that is still sending its body. Knows ASGI and nothing of what is sent or answered.

Closing a connection with unread bytes in it makes the kernel send a reset, which can overtake the answer; keeping it
open makes the server read on for ever. So an early answer goes out whole, saying that the connection will close, and
what still comes is read and thrown away for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER = 30.0
IDLE = 5.0
"""Seconds to go on reading: altogether, and without a byte."""


def lingering(app: ASGIApp) -> ASGIApp:
    """The app, its early answers made safe."""

    async def linger(scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(scope, receive)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and body.outstanding:
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] == "http.response.body" and not message.get("more_body") and body.outstanding:
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await app(scope, body.receive, answer)

    return linger


class _Body:
    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.outstanding = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            self.outstanding = False
        return message

    async def discard(self) -> None:
        """Read on until the body or the connection has ended, or patience has."""
        try:
            async with asyncio.timeout(LINGER):
                while self.outstanding:
                    async with asyncio.timeout(IDLE):
                        await self.receive()
        except TimeoutError:
            return
