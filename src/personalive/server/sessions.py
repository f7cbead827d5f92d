"""Registry of sessions: as many as the device's speed allows, and a queue of tickets for those who come later."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.session import Session
from personalive.live.worker import Worker
from personalive.server.auth import same
from personalive.server.config import ServerConfig

_LOG = logging.getLogger(__name__)
_CHECK_S = 0.5


class SessionRegistry:
    """Opens, finds and ends sessions. Event loop only."""

    def __init__(
        self,
        worker: Worker,
        folder: Path,
        *,
        live: LiveConfig | None = None,
        server: ServerConfig | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """
        Args:
            folder: for uploads; each session has a folder of its own there.
        """
        self.worker, self.folder, self._clock = worker, folder, clock
        self.live, self.server = live or LiveConfig(), server or ServerConfig()
        self.signing = asyncio.Semaphore(self.server.signed_at_once)
        self._sessions: dict[str, Session] = {}
        self._tickets: dict[str, float] = {}  # in order of arrival, with the time of the last request
        self._totals: Counter[str] = Counter()  # of sessions that have ended
        self.draining = False  # no session is opened any more

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    @property
    def waiting(self) -> int:
        """Number of clients in the queue."""
        return len(self._tickets)

    @property
    def ready(self) -> bool:
        """True while sessions can be opened."""
        return self.worker.state == "ready" and not self.draining

    def check_ready(self) -> None:
        """Raise ``RefusedError`` unless sessions can be opened."""
        if not self.ready:
            message = "the server is about to stop" if self.draining else self.worker.message
            message = message or "the server is not ready"
            raise RefusedError("not_ready", message, retry_after_s=self.server.retry_after_s)

    def totals(self) -> Counter[str]:
        """Return sessions opened, frames made and frames dropped since the start."""
        return self._totals + sum((_counts(session) for session in self), Counter())

    def open(self, ticket: str | None, *, seed: int = 0, view_key: str | None = None) -> Session:
        """Create a session.

        Args:
            ticket: of an earlier refusal, which keeps the place in the queue.
            view_key: of an earlier session, so that a link to its view shows this one; None makes a new one.

        Raises:
            RefusedError: the model is not ready, or no session is free; then with a ticket.
        """
        self.check_ready()
        worker = self.worker
        self._drop_stale_tickets()
        ahead = list(self._tickets).index(ticket) if ticket in self._tickets else len(self._tickets)
        if ahead >= worker.session_limit - len(self):
            raise self._queued(ticket, ahead)
        if ticket is not None:
            self._tickets.pop(ticket, None)
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        session = Session(
            folder=folder,
            loop=asyncio.get_running_loop(),
            clock=self._clock,
            config=self.live,
            controls=LiveControls(seed=seed, steps=self.server.steps),
            view_key=view_key,
        )
        self._sessions[session.id] = session
        worker.add_session(session)
        _LOG.info("session opened", extra={"session": session.id})
        return session

    def find(self, ident: str) -> Session:
        """Return the session with this id.

        Raises:
            RefusedError: there is none, or it has ended.
        """
        session = self._sessions.get(ident)
        if session is None or session.ended is not None:
            raise RefusedError("not_found", "no such session: it has ended, or the address is wrong")
        return session

    def find_view(self, key: str) -> Session:
        """Return the newest session with this view key.

        Raises:
            RefusedError: there is none now.
        """
        for session in reversed(self._sessions.values()):
            if session.ended is None and same(key, session.view_key):
                return session
        raise RefusedError("not_found", "nothing to view: no session with this key runs now")

    def close(self, session: Session, reason: str) -> None:
        """End a session and remove its uploads."""
        session.end(reason)
        if self._sessions.pop(session.id, None) is not None:
            self._totals += _counts(session)
            _LOG.info("session ended: %s", reason, extra={"session": session.id})
        shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self, reason: str) -> None:
        """End all sessions."""
        for session in self:
            self.close(session, reason)

    async def watch(self) -> None:
        """Restart a dead worker, end unused sessions and drop stale tickets, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_S)
            self.check()

    def check(self) -> None:
        """Run one round of ``watch``."""
        self.worker.check()
        self._drop_stale_tickets()
        now = self._clock()
        for session in self:
            if session.connections:
                session.seen_s = now
            if session.ended is not None:
                self.close(session, session.ended)
            elif now - session.seen_s > self.live.idle_s:
                self.close(session, "nobody was connected any more")

    def _queued(self, ticket: str | None, ahead: int) -> RefusedError:
        """Return the refusal of a client with ``ahead`` before it, and a ticket if the queue has room."""
        limit, wait_s = self.worker.session_limit, self.server.retry_after_s
        if ticket is None or ticket not in self._tickets:
            if len(self._tickets) >= self.server.waiting_places:
                message = "all sessions are taken, and so are all places in line"
                return RefusedError("server_full", message, retry_after_s=wait_s)
            ticket = secrets.token_urlsafe(12)
        self._tickets[ticket] = self._clock()
        are_open = "session is" if limit == 1 else "sessions are"
        return RefusedError(
            "server_full",
            f"all that this device can serve at once ({limit} {are_open} open): you are number {ahead + 1} in line",
            ticket=ticket,
            position=ahead + 1,
            retry_after_s=wait_s,
        )

    def _drop_stale_tickets(self) -> None:
        now = self._clock()
        self._tickets = {ticket: seen for ticket, seen in self._tickets.items() if now - seen <= self.server.ticket_s}


def _counts(session: Session) -> Counter[str]:
    return Counter(opened=1, frames=session.metrics.finished, **session.dropped())
