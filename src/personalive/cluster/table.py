"""Table of the ingress: which replica has which session, and which one gets the next. Event loop only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel

from personalive.cluster.config import ServeClusterConfig
from personalive.live.errors import RefusedError
from personalive.live.session import SavedSession
from personalive.server.auth import same
from personalive.server.config import ServerConfig
from personalive.server.tickets import TicketQueue


class ReplicaState(BaseModel):
    """State of a replica, as it sends it."""

    ready: bool
    draining: bool
    step_s: float | None  # median time of an engine call
    limit: int  # sessions that it keeps up with
    jobs: list[str]
    sessions: list[SavedSession]


@dataclass(eq=False)
class Replica:
    """Replica that the ingress is linked to."""

    id: str
    url: str
    state: ReplicaState
    sessions: set[Placed] = field(default_factory=set)  # those under way to it too
    opening: int = 0  # sessions that are being opened there

    @property
    def is_open(self) -> bool:
        """True while it takes new sessions."""
        return self.state.ready and not self.state.draining

    @property
    def load_s(self) -> float:
        """Time in which each session would get one engine call if there were one session more."""
        return (len(self.sessions) + self.opening + 1) * (self.state.step_s or 1.0)

    @property
    def free(self) -> int:
        """Number of sessions that it could still take."""
        return self.state.limit - len(self.sessions) - self.opening if self.is_open else 0


@dataclass(eq=False)
class Placed:
    """Session of the cluster."""

    saved: SavedSession
    home: Replica | None  # where its requests go; None while it moves from a replica that is lost
    portrait: Path | str | None = None  # the file as it was sent, or its name in the gallery
    listed: bool = False  # by its home, since it is there
    moving: bool = False
    reason: str = ""  # of the last move
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # set, and replaced, with every change of ``home``
    ended: bool = False

    def settle(self, home: Replica | None) -> None:
        """Set the home and wake all who wait for it."""
        self.home, self.listed = home, False
        self.wake()

    def wake(self) -> None:
        """Wake all who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def wait_for_home(self) -> Replica:
        """Return the home, once there is one.

        Raises:
            RefusedError: the session has ended.
        """
        while self.home is None and not self.ended:
            await self.changed.wait()
        if self.ended or self.home is None:
            raise RefusedError("not_found", "no such session: it has ended, or the address is wrong")
        return self.home


class Table:
    """Replicas, sessions and jobs of the cluster, and the queue of those who wait for a session."""

    def __init__(self, server: ServerConfig, cluster: ServeClusterConfig) -> None:
        self.server, self.cluster = server, cluster
        self.replicas: dict[str, Replica] = {}
        self.sessions: dict[str, Placed] = {}
        self.jobs: dict[str, Replica] = {}
        self.tickets = TicketQueue(server)
        self.moved = self.lost = 0  # sessions, since the start

    @property
    def limit(self) -> int:
        """Number of sessions that all open replicas keep up with."""
        return sum(replica.state.limit for replica in self.replicas.values() if replica.is_open)

    def least_loaded(self, *, but: Replica | None = None) -> Replica | None:
        """Return the open replica whose sessions would wait least for an engine call; full ones come last.

        Among loads that are nearly equal the fewest sessions decide: times waver, also those of equal devices.
        """
        found = [replica for replica in self.replicas.values() if replica.is_open and replica is not but]
        found = [replica for replica in found if replica.free > 0] or found
        least_s = min((replica.load_s for replica in found), default=0.0)
        near = [replica for replica in found if replica.load_s <= least_s * (1 + self.cluster.equal_share)]
        return min(near, key=lambda replica: (len(replica.sessions) + replica.opening, replica.load_s), default=None)

    def any_replica(self) -> Replica:
        """Return a replica for what each answers alike.

        Raises:
            RefusedError: there is none.
        """
        found = self.least_loaded() or next(iter(self.replicas.values()), None)
        if found is None:
            raise self.no_replica()
        return found

    def fewest_jobs(self) -> Replica:
        """Return the open replica with the fewest jobs.

        Raises:
            RefusedError: there is none.
        """
        found = [replica for replica in self.replicas.values() if replica.is_open]
        if not found:
            raise self.no_replica()
        return min(found, key=lambda replica: sum(home is replica for home in self.jobs.values()))

    def admit(self, ticket: str | None) -> Replica:
        """Return the replica for a new session, and take the place there: ``opening``.

        Raises:
            RefusedError: no replica is ready, or no session is free; then with a ticket.
        """
        if self.least_loaded() is None:
            raise self.no_replica()
        free = sum(max(0, replica.free) for replica in self.replicas.values())
        self.tickets.admit(ticket, open_count=self.limit - free, limit=self.limit)
        chosen = self.least_loaded()
        assert chosen is not None
        chosen.opening += 1
        return chosen

    def no_replica(self) -> RefusedError:
        """Return the refusal while no replica is ready."""
        wait_s = self.server.retry_after_s
        return RefusedError("not_ready", "no replica is ready yet: try again", retry_after_s=wait_s)

    def add(self, saved: SavedSession, home: Replica) -> Placed:
        """Put a new session in the table."""
        placed = self.sessions[saved.id] = Placed(saved, home)
        home.sessions.add(placed)
        return placed

    def find(self, ident: str) -> Placed:
        """Return a session.

        Raises:
            RefusedError: there is none with this id.
        """
        if (placed := self.sessions.get(ident)) is None:
            raise RefusedError("not_found", "no such session: it has ended, or the address is wrong")
        return placed

    def find_view(self, key: str) -> Placed:
        """Return the newest session with this view key.

        Raises:
            RefusedError: there is none.
        """
        for placed in reversed(self.sessions.values()):
            if same(key, placed.saved.view_key):
                return placed
        raise RefusedError("not_found", "nothing to view: no session with this key runs now")

    def remove(self, placed: Placed) -> None:
        """Remove a session that has ended, and its portrait."""
        self.sessions.pop(placed.saved.id, None)
        for replica in self.replicas.values():
            replica.sessions.discard(placed)
        if isinstance(placed.portrait, Path):
            placed.portrait.unlink(missing_ok=True)
        placed.ended, placed.home = True, None
        placed.wake()

    def update(self, replica: Replica, state: ReplicaState) -> list[Placed]:
        """Take in a replica's state: what its sessions are like, which are new here, and which have ended.

        Returns:
            Sessions that were opened before this ingress began: their portraits are not here.
        """
        replica.state, found = state, []
        for saved in state.sessions:
            placed = self.sessions.get(saved.id)
            if placed is None and replica.opening:  # it may be the one that is being opened, which counts already
                continue
            if placed is None:
                found.append(placed := self.add(saved, replica))
            if placed.home is replica:
                placed.saved, placed.listed = saved, True
        self.jobs |= dict.fromkeys(state.jobs, replica)
        listed = {saved.id for saved in state.sessions}
        for placed in list(replica.sessions):
            if placed.home is replica and placed.listed and placed.saved.id not in listed:
                self.remove(placed)
        return found

    def resumed(self, placed: Placed) -> SavedSession:
        """Return what the next replica of a session is given: frames count on, beyond those not heard of yet."""
        return replace(placed.saved, index=placed.saved.index + self.cluster.frames_skipped)
