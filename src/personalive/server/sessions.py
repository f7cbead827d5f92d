"""Who may have a session: a limit that follows from the device's speed, and a line for those who come too late."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.session import Session
from personalive.live.worker import Worker
from personalive.server.auth import same
from personalive.server.config import ServerConfig

_LOOK_S = 0.5


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
        self.worker, self._folder, self._clock = worker, folder, clock
        self.live, self.server = live or LiveConfig(), server or ServerConfig()
        self._sessions: dict[str, Session] = {}
        self._line: dict[str, float] = {}  # tickets in order of arrival, and when each was last asked for

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    @property
    def waiting(self) -> int:
        """People in line."""
        return len(self._line)

    def open(self, ticket: str | None, *, seed: int = 0, view_key: str | None = None) -> Session:
        """A new session.

        Args:
            ticket: the place in line that was given before.
            view_key: of an earlier session, so that a link to its view shows this one; None makes a new one.

        Raises:
            RefusedError: the model is not ready, or no session is free; then with a place in line.
        """
        worker, wait = self.worker, {"retry_after_s": self.server.retry_after_s}
        if worker.state != "ready":
            raise RefusedError("not_ready", worker.message or "the server is not ready", **wait)
        self._forget_absent()
        line = list(self._line)
        ahead = line.index(ticket) if ticket in self._line else len(line)
        free = worker.session_limit - len(self)
        if ahead >= free:
            raise self._full(ticket, ahead)
        if ticket is not None:
            self._line.pop(ticket, None)
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        session = Session(
            folder=folder,
            loop=asyncio.get_running_loop(),
            clock=self._clock,
            config=self.live,
            seed=seed,
            view_key=view_key,
        )
        self._sessions[session.id] = session
        worker.add_session(session)
        return session

    def find(self, ident: str) -> Session:
        """The session of that name.

        Raises:
            RefusedError: there is none, or it has ended.
        """
        session = self._sessions.get(ident)
        if session is None or session.ended is not None:
            raise RefusedError("not_found", "no such session: it has ended, or the address is wrong")
        return session

    def find_view(self, key: str) -> Session:
        """The newest session with that view key.

        Raises:
            RefusedError: there is none now.
        """
        for session in reversed(self._sessions.values()):
            if session.ended is None and same(key, session.view_key):
                return session
        raise RefusedError("not_found", "nothing to view: no session with this key runs now")

    def close(self, session: Session, reason: str) -> None:
        """End a session; what was uploaded to it is gone."""
        session.end(reason)
        self._sessions.pop(session.id, None)
        shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self, reason: str) -> None:
        """End all sessions."""
        for session in self:
            self.close(session, reason)

    async def watch(self) -> None:
        """Look after everything until cancelled: a dead worker, sessions nobody is at, places nobody asks for."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """One round of ``watch``."""
        self.worker.check()
        self._forget_absent()
        now = self._clock()
        for session in self:
            if session.connections:
                session.seen_s = now
            if session.ended is not None:
                self.close(session, session.ended)
            elif now - session.seen_s > self.live.idle_s:
                self.close(session, "nobody was connected any more")

    def _full(self, ticket: str | None, ahead: int) -> RefusedError:
        limit, told = self.worker.session_limit, {"retry_after_s": self.server.retry_after_s}
        if ticket not in self._line and len(self._line) >= self.server.waiting_places:
            return RefusedError("server_full", "all sessions are taken, and so are all places in line", **told)
        ticket = ticket if ticket in self._line and ticket is not None else secrets.token_urlsafe(12)
        self._line[ticket] = self._clock()
        people = "session is" if limit == 1 else "sessions are"
        return RefusedError(
            "server_full",
            f"all that this device can serve at once ({limit} {people} open): you are number {ahead + 1} in line",
            ticket=ticket,
            position=ahead + 1,
            **told,
        )

    def _forget_absent(self) -> None:
        now = self._clock()
        for ticket, seen in list(self._line.items()):
            if now - seen > self.server.ticket_s:
                del self._line[ticket]
