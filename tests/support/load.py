"""Load over plain connections that are kept open, and what came of every request: answered, dropped, or never sent."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    sent: Body
    status: int
    got: Any
    seconds: float


@dataclass
class Tally:
    """What a load came to; ``dropped`` were sent and not answered, ``refused`` connections were never made."""

    answers: list[Answer] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def failed(self) -> list[Any]:
        return [*self.dropped, *(one for one in self.answers if one.status != 200)]


async def _client(
    address: tuple[str, int], bodies: Sequence[Body], go_on: Callable[[], bool], every: float, heed: bool, tally: Tally
) -> None:
    writer, number = None, 0
    while go_on():
        if writer is None:
            try:
                reader, writer = await asyncio.open_connection(*address)
            except OSError:
                tally.refused += 1
                return
        body, began = bodies[number % len(bodies)], time.perf_counter()
        number += 1
        content = json.dumps(body).encode()
        try:
            writer.write(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % len(content)
                + content
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            got = json.loads(await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0])))
        except (OSError, asyncio.IncompleteReadError) as error:
            tally.dropped.append(repr(error))
            writer = None
            continue
        tally.answers.append(Answer(body, int(head.split()[1]), got, time.perf_counter() - began))
        if "connection: close" in head:
            writer.close()
            writer = None
            if heed:
                return
        await asyncio.sleep(every)
    if writer:
        writer.close()


def hammer(
    url: str,
    bodies: Sequence[Body],
    go_on: Callable[[], bool],
    clients: int = 4,
    every: float = 0.002,
    heed: bool = False,
) -> Tally:
    """Send ``bodies`` again and again by several clients, each ``every`` seconds after its last answer, while ``go_on``.

    Clients that ``heed`` make no new connection once they are told ``Connection: close``, as a balancer would not.
    """
    parts, tally = urlsplit(url), Tally()
    address = (str(parts.hostname), int(parts.port or 80))

    async def all_clients() -> None:
        turned = [bodies[one:] + bodies[:one] for one in range(clients)]
        await asyncio.gather(*(_client(address, own, go_on, every, heed, tally) for own in turned))

    asyncio.run(all_clients())
    return tally


def hammer_while(
    act: Callable[[], object],
    url: str,
    bodies: Sequence[Body],
    clients: int = 4,
    every: float = 0.002,
    heed: bool = False,
) -> Tally:
    """Return what came of a load that lasted while ``act`` acted; what it raises is raised here."""
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        tally = hammer(url, bodies, lambda: not acting.done(), clients, every, heed)
    acting.result()
    return tally
