"""Asks a server again and again over one datagram endpoint of asyncio, and prints its answers.

Arguments: address, port, how. An endpoint that is told to connect does so once.
"""

import asyncio
import sys

ADDRESS, HOW = (sys.argv[1], int(sys.argv[2])), sys.argv[3]


class Client(asyncio.DatagramProtocol):
    def datagram_received(self, data, source):
        # An answer from another address than the one that was asked is none.
        if source[:2] == ADDRESS:
            print(data.decode(), flush=True)

    def error_received(self, error):
        print(error, file=sys.stderr)


async def main():
    loop = asyncio.get_running_loop()
    where = {"remote_addr": ADDRESS} if HOW == "connected" else {"local_addr": ("0.0.0.0", 0)}
    transport, _ = await loop.create_datagram_endpoint(Client, **where)
    while True:
        transport.sendto(b"question", None if HOW == "connected" else ADDRESS)
        await asyncio.sleep(0.05)


asyncio.run(main())
