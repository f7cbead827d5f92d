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
from typing import Any

from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.session import SavedSession, Session
from personalive.live.worker import Worker
from personalive.server.auth import same
from personalive.server.config import ServerConfig
from personalive.server.tickets import TicketQueue

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
        self._tickets = TicketQueue(self.server, clock)
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
        self._tickets.admit(ticket, open_count=len(self), limit=self.worker.session_limit)
        return self._add(LiveControls(seed=seed, steps=self.server.steps), view_key=view_key)

    def restore(self, saved: SavedSession) -> Session:
        """Go on with a session of another server, whether one is free or not; its portrait comes next.

        Raises:
            RefusedError: the model is not ready.
            InputError: controls out of range.
        """
        self.check_ready()
        session = self._add(LiveControls().changed(saved.controls), saved=saved)
        session.set_playing(saved.playing)
        return session

    def _add(self, controls: LiveControls, **identity: Any) -> Session:
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        session = Session(
            folder=folder,
            loop=asyncio.get_running_loop(),
            clock=self._clock,
            config=self.live,
            controls=controls,
            **identity,
        )
        self._sessions[session.id] = session
        self.worker.add_session(session)
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
        """Restart a dead worker and end unused sessions, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_S)
            self.check()

    def check(self) -> None:
        """Run one round of ``watch``."""
        self.worker.check()
        now = self._clock()
        for session in self:
            if session.connections:
                session.seen_s = now
            if session.ended is not None:
                self.close(session, session.ended)
            elif now - session.seen_s > self.live.idle_s:
                self.close(session, "nobody was connected any more")


def _counts(session: Session) -> Counter[str]:
    return Counter(opened=1, frames=session.metrics.finished, **session.dropped())
