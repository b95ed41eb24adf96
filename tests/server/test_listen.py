"""The listening socket's connections send at once what is written."""

from __future__ import annotations

import asyncio
import socket

from lostwax.server.gateway.serve import listen


def test_connections_do_not_wait_for_acknowledgements_to_send_small_parts() -> None:
    # With Nagle's algorithm on, every streamed token waits for the client's delayed
    # acknowledgement of the one before: 40 ms on Linux.
    async def nodelay_of_a_connection() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection: socket.socket = writer.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(accept, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                found = await asyncio.wait_for(accepted, 10)
                writer.close()
                return found

    assert asyncio.run(nodelay_of_a_connection()) != 0
