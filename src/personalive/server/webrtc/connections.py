"""WebRTC connections of sessions: who may have one, and that each ends with what it belongs to.

Results go out as VP8 where the client can take it, else H.264. Encoding 25 frames per second on one core takes, per
frame of 256 and 512 px, 1.5 and 3.6 ms as VP8 (0.5 Mbit/s, 39 and 38 dB) and 5.5 and 12.8 ms as H.264 (0.8 Mbit/s, 42
dB). What a client says it can receive sets the rate within aiortc's limits: 0.25 to 1.5 and 0.5 to 3 Mbit/s.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)

from personalive.live.errors import RefusedError
from personalive.live.session import Session
from personalive.server.sessions import SessionRegistry
from personalive.server.webrtc.sdp import Offer, Trickle, read_ice_server
from personalive.server.webrtc.tracks import ResultTrack, Sound, SoundTrack, drive, hand_on

_LOG = logging.getLogger(__name__)
_ID_BYTES = 12
_CODECS = ("video/VP8", "video/H264", "video/rtx")  # in order of preference

Kind = Literal["whip", "whep"]


class Connection:
    """One connection, its tasks, and its place in the session. Event loop only.

    It ends by itself: with the session, when the other side leaves or is lost (after 30 s of silence, RFC 7675), when
    its work is done, and when it has not connected in time.
    """

    def __init__(self, session: Session, kind: Kind, offer: Offer, connection: RTCPeerConnection) -> None:
        self.id, self.session, self.kind, self.offer = secrets.token_urlsafe(_ID_BYTES), session, kind, offer
        self.connection = connection
        self.connected = False
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._life: asyncio.Task[None] | None = None
        connection.on("connectionstatechange", self._look)

    def begin(self, connect_s: float, forget: Callable[[Connection], None]) -> None:
        """Live from now on; ``forget`` is called when it is all over."""
        self._life = asyncio.create_task(self._live(connect_s, forget))
        self.work(self._end_with_session, vital=True)

    def work(self, work: Callable[[], Coroutine[Any, Any, None]], *, vital: bool) -> None:
        """Do something beside, until it is done or the peer ends; with ``vital`` work the peer ends too."""
        if not self._over.is_set():
            self._tasks.append(asyncio.create_task(self._watch(work, vital)))

    async def close(self) -> None:
        """End; returns when nothing is left of it."""
        self._over.set()
        if self._life is not None:
            await asyncio.wait([self._life])

    async def _live(self, connect_s: float, forget: Callable[[Connection], None]) -> None:
        timer = asyncio.get_running_loop().call_later(connect_s, self._give_up)
        try:
            await self._over.wait()
        finally:
            timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self.connected:
                self.session.connections -= 1
                self.session.seen_s = self.session.clock()
            try:
                await self.connection.close()
            finally:
                forget(self)

    async def _watch(self, work: Callable[[], Coroutine[Any, Any, None]], vital: bool) -> None:
        try:
            await work()
        except RefusedError as error:
            self.session.send(error.message())
        except Exception as error:  # noqa: BLE001 (one peer's fault is not the server's)
            _LOG.exception("a WebRTC peer failed", exc_info=error)
        if vital:
            self._over.set()

    async def _end_with_session(self) -> None:
        listener = self.session.add_listener()
        try:
            while self.session.ended is None:
                await listener.get()
        finally:
            self.session.remove_listener(listener)

    def _look(self) -> None:
        state = self.connection.connectionState
        if state == "connected" and not self.connected and not self._over.is_set():
            self.connected = True
            self.session.connections += 1
        elif state in ("failed", "closed"):
            self._over.set()

    def _give_up(self) -> None:
        if not self.connected:
            self._over.set()


class _Room:
    """Connections of one session."""

    def __init__(self, session: Session) -> None:
        self.peers: dict[str, Connection] = {}
        self.sound = Sound(session.clock)
        self.door = asyncio.Lock()  # one offer at a time

    def forget(self, peer: Connection) -> None:
        """It is over."""
        self.peers.pop(peer.id, None)

    def of(self, kind: Kind) -> list[Connection]:
        return [peer for peer in self.peers.values() if peer.kind == kind]


class Connections:
    """All WebRTC connections of the server. Event loop only."""

    def __init__(self, desk: SessionRegistry) -> None:
        """
        Raises:
            InputError: an ICE server in the configuration that is none.
        """
        self._desk, self._config = desk, desk.server
        servers = [read_ice_server(url) for url in desk.server.ice_servers]
        self._setting = RTCConfiguration(iceServers=servers)  # empty, not None: aiortc would ask a public server
        self._rooms: WeakKeyDictionary[Session, _Room] = WeakKeyDictionary()

    def __len__(self) -> int:
        return sum(len(room.peers) for room in self._rooms.values())

    async def take_in(self, session: Session, offer: Offer) -> tuple[Connection, str]:
        """Let a client's video drive the session, in place of the client before; and the answer's SDP.

        Raises:
            RefusedError: the offer cannot be answered. The client before stays.
        """
        room = self._room(session)
        async with room.door:
            before = room.of("whip")
            peer = self._new_peer(session, "whip", offer, room)

            @peer.connection.on("track")
            def start(track: MediaStreamTrack) -> None:
                if track.kind == "video":
                    peer.work(partial(drive, track, session, self._config.frame_pixels), vital=True)
                else:
                    peer.work(partial(hand_on, track, session, room.sound), vital=False)

            answer = await self._answer(peer)
            for old in before:
                await old.close()
        return peer, answer

    async def send_out(self, session: Session, offer: Offer) -> tuple[Connection, str]:
        """Show a client the result, with the driver's sound; and the answer's SDP.

        Raises:
            RefusedError: the offer cannot be answered, there are too many viewers, or the model is not loaded.
        """
        room = self._room(session)
        async with room.door:
            if len(room.of("whep")) >= self._config.webrtc_viewers:
                raise RefusedError(
                    "server_full",
                    f"{self._config.webrtc_viewers} viewers see this session by WebRTC already: close one of them",
                    retry_after_s=self._config.retry_after_s,
                )
            engine = self._desk.worker.engine
            if engine is None:
                wait = {"retry_after_s": self._config.retry_after_s}
                raise RefusedError("not_ready", self._desk.worker.message, **wait)
            peer = self._new_peer(session, "whep", offer, room)
            connection = peer.connection
            picture = connection.addTransceiver(
                ResultTrack(session, engine.image_size, self._config.repeat_s), direction="sendonly"
            )
            picture.setCodecPreferences(_preferred())
            if offer.has_audio:
                connection.addTransceiver(SoundTrack(room.sound, session.clock), direction="sendonly")
            return peer, await self._answer(peer)

    def find(self, session: Session, kind: Kind, ident: str) -> Connection:
        """A session's connection of that name.

        Raises:
            RefusedError: there is none, or it has ended.
        """
        room = self._rooms.get(session)
        peer = room.peers.get(ident) if room else None
        if peer is None or peer.kind != kind:
            raise RefusedError("not_found", "no such connection: it has ended, or the address is wrong")
        return peer

    async def trickle(self, peer: Connection, found: Trickle) -> None:
        """Addresses that a client has found since.

        Raises:
            RefusedError: it asks for an ICE restart, which there is none of: connect anew instead.
        """
        if not found.ice_names <= peer.offer.ice_names:
            raise RefusedError("unusable_input", "ICE restarts are not supported: send a new offer instead")
        with suppress(TimeoutError):  # names that nobody answers for
            async with asyncio.timeout(self._config.negotiate_s):
                for candidate in found.candidates:
                    await peer.connection.addIceCandidate(candidate)
                if found.complete:
                    await peer.connection.addIceCandidate(None)

    async def close_all(self) -> None:
        """End all; returns when nothing is left of them."""
        peers = [peer for room in self._rooms.values() for peer in room.peers.values()]
        await asyncio.gather(*(peer.close() for peer in peers))

    def _room(self, session: Session) -> _Room:
        if session not in self._rooms:
            self._rooms[session] = _Room(session)
        return self._rooms[session]

    def _new_peer(self, session: Session, kind: Kind, offer: Offer, room: _Room) -> Connection:
        peer = Connection(session, kind, offer, RTCPeerConnection(self._setting))
        room.peers[peer.id] = peer
        peer.begin(self._config.connect_s, room.forget)
        return peer

    async def _answer(self, peer: Connection) -> str:
        connection = peer.connection
        try:
            async with asyncio.timeout(self._config.negotiate_s):
                await connection.setRemoteDescription(RTCSessionDescription(peer.offer.sdp, "offer"))
                await connection.setLocalDescription(await connection.createAnswer())
            answer = connection.localDescription.sdp
        except BaseException as error:
            await peer.close()
            if not isinstance(error, Exception):  # the request was given up
                raise
            raise _refusal(peer.session, error) from None
        if "a=candidate:" not in answer:
            await peer.close()
            raise RefusedError("not_ready", "this machine has no network address that WebRTC could use")
        return answer


def _preferred() -> list[Any]:
    known = RTCRtpSender.getCapabilities("video").codecs
    return [codec for name in _CODECS for codec in known if codec.mimeType == name]


def _refusal(session: Session, error: Exception) -> RefusedError:
    if session.ended is not None:
        return RefusedError("not_found", f"the session has ended: {session.ended}")
    if isinstance(error, TimeoutError):
        return RefusedError(
            "bad_request", "the offer could not be answered in time: its addresses cannot be resolved"
        )
    _LOG.info("a WebRTC offer was refused", exc_info=error)
    return RefusedError("bad_request", "the offer cannot be used: no codec in common (VP8, H.264, Opus), or broken")
