"""Tickets of the queue and ends of sessions, with a clock of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from personalive.live.errors import RefusedError
from personalive.live.queues import Listener
from personalive.live.worker import Worker
from personalive.server.config import ServerConfig
from personalive.server.sessions import SessionRegistry


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def with_registry(
    tmp_path: Path, work: Callable[[SessionRegistry, FakeClock], Awaitable[Any]], **settings: Any
) -> Any:
    """Run ``work`` with a registry that allows one session."""

    async def run() -> Any:
        clock = FakeClock()
        worker = SimpleNamespace(
            state="ready", message="", session_limit=1, add_session=lambda _: None, check=lambda: None
        )
        registry = SessionRegistry(cast(Worker, worker), tmp_path, server=ServerConfig(**settings), clock=clock)
        return await work(registry, clock)

    return asyncio.run(run())


def queue(registry: SessionRegistry, ticket: str | None = None) -> dict[str, Any]:
    with pytest.raises(RefusedError) as refusal:
        registry.open(ticket)
    assert refusal.value.kind == "server_full"
    return refusal.value.more


def test_a_ticket_that_is_not_used_is_lost_and_the_others_move_up(tmp_path):
    async def wait(registry: SessionRegistry, clock: FakeClock) -> None:
        registry.open(None)
        first, second = queue(registry), queue(registry)
        assert (first["position"], second["position"]) == (1, 2)
        clock.now = 20.0
        assert queue(registry, second["ticket"])["position"] == 2
        clock.now = 31.0  # the first was asked for at 0, the second at 20
        assert queue(registry, second["ticket"])["position"] == 1
        again = queue(registry, first["ticket"])
        assert again["position"] == 2
        assert again["ticket"] != first["ticket"]
        clock.now = 100.0
        registry.check()  # nobody asked any more
        assert registry.waiting == 0

    with_registry(tmp_path, wait)


def test_a_made_up_ticket_is_a_new_ticket(tmp_path):
    async def wait(registry: SessionRegistry, clock: FakeClock) -> None:
        registry.open(None)
        queue(registry)
        refusal = queue(registry, "made up")
        assert refusal["position"] == 2
        assert refusal["ticket"] != "made up"

    with_registry(tmp_path, wait)


def test_a_socket_that_opens_as_its_session_ends_is_told(tmp_path):
    async def end(registry: SessionRegistry, clock: FakeClock) -> list[str]:
        session = registry.open(None)
        registry.close(session, "over")
        listener: Listener = session.add_listener()
        return [(await asyncio.wait_for(listener.get(), 5))["type"] for _ in range(2)]

    assert with_registry(tmp_path, end) == ["state", "ended"]


def test_a_session_ends_though_someone_who_asked_is_gone(tmp_path):
    async def end(registry: SessionRegistry, clock: FakeClock) -> str | None:
        session = registry.open(None)
        gone, waiting = (asyncio.create_task(session.run_on_worker(lambda stream: None)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        registry.close(session, "over")
        with pytest.raises(RefusedError):
            await asyncio.wait_for(waiting, 5)
        return session.ended

    assert with_registry(tmp_path, end) == "over"
    assert not list(tmp_path.iterdir())


class FakePlayer:
    """Plays, or does not."""

    driver, loop = "clip", True

    def __init__(self) -> None:
        self.playing = False

    def start(self) -> None:
        self.playing = True

    def stop(self) -> None:
        self.playing = False

    def discard(self) -> None:
        assert not self.playing


def test_of_two_drivers_that_begin_at_once_one_plays(tmp_path):
    async def drive(registry: SessionRegistry, clock: FakeClock) -> None:
        session, players = registry.open(None), [FakePlayer() for _ in range(3)]

        def obey() -> None:
            while (order := session.next_request()) is not None:
                order[1].set_result(None)

        session.wake = obey
        await session.set_driver("clip", players[0])
        await asyncio.gather(*(session.set_driver("clip", player) for player in players[1:]))
        assert [player for player in players if player.playing] == [session.player]

    with_registry(tmp_path, drive)
