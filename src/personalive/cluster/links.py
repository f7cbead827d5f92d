"""Links of the ingress to the replicas: what they have, when one is lost, and sessions that move to another."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from personalive.cluster.table import Placed, Replica, ReplicaState, Table
from personalive.server.auth import PROTOCOL

_LOG = logging.getLogger(__name__)
_RETRY_S = 0.5
LOST = "its device was lost: the session goes on on another one"
LEAVING = "its device is being removed: the session goes on on another one"


class Links:
    """One link per replica; a lost or leaving replica's sessions are moved. Event loop only."""

    def __init__(self, table: Table, http: aiohttp.ClientSession, secret: str, folder: Path) -> None:
        """
        Args:
            secret: token of the replicas.
            folder: for portraits.
        """
        self._table, self._http, self._secret, self._folder = table, http, secret, folder
        self._tasks: set[asyncio.Task] = set()
        self._joining: set[str] = set()
        self._stopping = False

    @property
    def authorization(self) -> dict[str, str]:
        """Header that the replicas ask for where they ask for the server's token."""
        return {"Authorization": f"Bearer {self._secret}"}

    def join(self, ident: str, url: str) -> None:
        """Link a replica, unless it is linked already."""
        if ident not in self._table.replicas and ident not in self._joining:
            self._joining.add(ident)
            self._start(self._serve_link(ident, url))

    async def stop(self) -> None:
        """Tell all replicas to end their sessions; returns when they have, or after a second."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while self._table.sessions:
                    await asyncio.sleep(self._table.cluster.state_interval_s)

    async def close(self) -> None:
        """End all links."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_link(self, ident: str, url: str) -> None:
        """Follow a replica's state until it is gone."""
        replica = None
        try:
            async with self._http.ws_connect(
                f"{url}/cluster/link",
                protocols=(PROTOCOL, f"key.{self._secret}"),
                heartbeat=self._table.cluster.heartbeat_s,
                max_msg_size=0,
            ) as socket:
                async for message in socket:
                    state = ReplicaState.model_validate_json(message.data)
                    if replica is None:
                        replica = self._table.replicas[ident] = Replica(ident, url, state)
                        _LOG.info("replica %s joined", ident)
                    for placed in self._table.update(replica, state):
                        self._start(self._fetch_portrait(placed, replica))
                    if state.draining and not self._stopping:
                        self._move_all(replica, LEAVING)
                    await socket.send_json({"waiting": len(self._table.tickets), "stop": self._stopping})
        except (aiohttp.ClientError, OSError, ValueError) as error:
            _LOG.info("the link to replica %s broke: %s", ident, error)
        finally:
            self._joining.discard(ident)
            if replica is not None:
                self._lose(replica)

    async def _fetch_portrait(self, placed: Placed, replica: Replica) -> None:
        """Keep the portrait of a session that was opened before this ingress began, for its next replica."""
        url = f"{replica.url}/cluster/sessions/{placed.saved.id}/portrait"
        try:
            async with self._http.get(url, headers=self.authorization) as answer:
                content = await answer.read() if answer.status == 200 else b""
        except (aiohttp.ClientError, OSError):
            return  # the replica is lost: so is the portrait
        if not content:
            return
        path = self._folder / f"{secrets.token_hex(8)}.image"
        await asyncio.to_thread(path.write_bytes, content)
        if placed.portrait is None and not placed.ended:
            placed.portrait = path
        else:  # another was sent meanwhile, or the session has ended
            path.unlink()

    def _lose(self, replica: Replica) -> None:
        """Forget a replica that is gone, and move its sessions."""
        table = self._table
        table.replicas.pop(replica.id, None)
        table.jobs = {ident: home for ident, home in table.jobs.items() if home is not replica}
        for placed in table.sessions.values():
            if placed.home is replica:
                placed.settle(None)
        if not self._stopping:
            _LOG.info("replica %s is gone, %d sessions move", replica.id, len(replica.sessions))
            self._move_all(replica, LOST)

    def _move_all(self, replica: Replica, reason: str) -> None:
        for placed in [placed for placed in replica.sessions if not placed.moving]:
            placed.moving = True
            self._start(self._move(placed, replica, reason))

    async def _move(self, placed: Placed, before: Replica, reason: str) -> None:
        """Go on with a session on the least loaded replica, however full; where there is none, it stays or ends."""
        table, placed.reason = self._table, reason
        try:
            async with asyncio.timeout(table.cluster.place_s):
                while not await self._restore(placed, before):
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError:
            if placed.home is None:
                _LOG.warning("session lost: no replica is left", extra={"session": placed.saved.id})
                table.lost += 1
                table.remove(placed)
            return
        finally:
            placed.moving = False
        if placed.ended:
            return
        table.moved += 1
        _LOG.info("session moved: %s", reason, extra={"session": placed.saved.id})
        if before.id in table.replicas:
            with suppress(aiohttp.ClientError, OSError):
                await self._request("DELETE", before, placed)

    async def _restore(self, placed: Placed, before: Replica) -> bool:
        """Restore a session elsewhere than ``before``, with its portrait; False where that is not possible now."""
        target = self._table.least_loaded(but=before)
        if target is None or placed.ended:
            return placed.ended
        target.sessions.add(placed)
        try:
            saved = asdict(self._table.resumed(placed))
            async with self._http.post(
                f"{target.url}/cluster/sessions", json=saved, headers=self.authorization
            ) as answer:
                answer.raise_for_status()
            if isinstance(placed.portrait, Path):
                body = await asyncio.to_thread(placed.portrait.read_bytes)
                await self._request("PUT", target, placed, "/portrait", data=body)
            elif placed.portrait is not None:
                await self._request("PUT", target, placed, "/portrait", params={"gallery": placed.portrait})
        except (aiohttp.ClientError, OSError) as error:
            _LOG.warning("session not moved yet: %s", error, extra={"session": placed.saved.id})
            target.sessions.discard(placed)
            return False
        except asyncio.CancelledError:
            target.sessions.discard(placed)
            raise
        before.sessions.discard(placed)
        placed.settle(target)
        return True

    async def _request(self, method: str, replica: Replica, placed: Placed, path: str = "", **options: Any) -> None:
        headers = {"Authorization": f"Bearer {placed.saved.key}"}
        url = f"{replica.url}/api/sessions/{placed.saved.id}{path}"
        async with self._http.request(method, url, headers=headers, **options) as answer:
            if answer.status >= 400:
                text = await answer.text()
                _LOG.warning("%s of a session that moves: %s", method, text, extra={"session": placed.saved.id})
