"""Queue of clients for whom no session is free: places in the order of arrival, held by tickets."""

from __future__ import annotations

import secrets
import time

from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.server.config import ServerConfig


class TicketQueue:
    """Tickets of clients that wait. Event loop only."""

    def __init__(self, config: ServerConfig, clock: Clock = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._tickets: dict[str, float] = {}  # in order of arrival, with the time of the last request

    def __len__(self) -> int:
        self._drop_stale()
        return len(self._tickets)

    def admit(self, ticket: str | None, *, open_count: int, limit: int) -> None:
        """Let a client in whose turn it is; its ticket is used up.

        Args:
            ticket: of an earlier refusal, which keeps the place.
            open_count: sessions that are open.
            limit: sessions that may be open.

        Raises:
            RefusedError: it is not its turn; with a ticket where the queue has room.
        """
        self._drop_stale()
        ahead = list(self._tickets).index(ticket) if ticket in self._tickets else len(self._tickets)
        if ahead >= limit - open_count:
            raise self._refusal(ticket, ahead, limit)
        if ticket is not None:
            self._tickets.pop(ticket, None)

    def _refusal(self, ticket: str | None, ahead: int, limit: int) -> RefusedError:
        wait_s = self._config.retry_after_s
        if ticket is None or ticket not in self._tickets:
            if len(self._tickets) >= self._config.waiting_places:
                message = "all sessions are taken, and so are all places in line"
                return RefusedError("server_full", message, retry_after_s=wait_s)
            ticket = secrets.token_urlsafe(12)
        self._tickets[ticket] = self._clock()
        are_open = "session is" if limit == 1 else "sessions are"
        return RefusedError(
            "server_full",
            f"all that can be served at once ({limit} {are_open} open): you are number {ahead + 1} in line",
            ticket=ticket,
            position=ahead + 1,
            retry_after_s=wait_s,
        )

    def _drop_stale(self) -> None:
        now, limit_s = self._clock(), self._config.ticket_s
        self._tickets = {ticket: seen for ticket, seen in self._tickets.items() if now - seen <= limit_s}
