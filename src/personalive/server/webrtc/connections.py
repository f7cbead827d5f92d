"""WebRTC connections of sessions: WHIP and WHEP offers answered, and each connection ended with its session.

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
from personalive.server.webrtc.tracks import AudioRelay, AudioTrack, ResultTrack, receive_video, relay_audio

_LOG = logging.getLogger(__name__)
_ID_BYTES = 12
_ICE_ROUND_S = 0.03  # aioice pauses 0.02 s between checks
_CODECS = ("video/VP8", "video/H264", "video/rtx")  # in order of preference

Kind = Literal["whip", "whep"]
Work = Callable[[], Coroutine[Any, Any, None]]


class Connection:
    """WebRTC connection of a session, with its tasks. Event loop only.

    It ends by itself: with the session, when the client leaves or is lost (after 30 s of silence, RFC 7675), when an
    essential task ends, and when it is not established in time.
    """

    def __init__(self, session: Session, kind: Kind, offer: Offer, rtc: RTCPeerConnection) -> None:
        self.id, self.session, self.kind, self.offer = secrets.token_urlsafe(_ID_BYTES), session, kind, offer
        self.rtc = rtc
        self.connected = False
        self._ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._lifetime: asyncio.Task[None] | None = None
        rtc.on("connectionstatechange", self._on_state_change)

    def start(self, connect_s: float, on_end: Callable[[Connection], None]) -> None:
        """Start; ``on_end`` is called when nothing of the connection is left."""
        self._lifetime = asyncio.create_task(self._run(connect_s, on_end))
        self.add_task(self._wait_for_session_end, essential=True)

    def add_task(self, work: Work, *, essential: bool) -> None:
        """Run ``work`` until it is done or the connection ends; the connection ends with essential work."""
        if not self._ended.is_set():
            self._tasks.append(asyncio.create_task(self._run_task(work, essential)))

    async def close(self) -> None:
        """End; returns when nothing is left of it."""
        self._ended.set()
        if self._lifetime is not None:
            await asyncio.wait([self._lifetime])

    async def _run(self, connect_s: float, on_end: Callable[[Connection], None]) -> None:
        timer = asyncio.get_running_loop().call_later(connect_s, self._end_unconnected)
        try:
            await self._ended.wait()
        finally:
            timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self.connected:
                self.session.connections -= 1
                self.session.seen_s = self.session.clock()
            try:
                await self._close_rtc()
            finally:
                on_end(self)

    async def _close_rtc(self) -> None:
        await self.rtc.close()
        if not self.connected:  # closed while connecting, aioice may still start consent checks, which never end
            await asyncio.sleep(_ICE_ROUND_S)
            for transceiver in self.rtc.getTransceivers():
                consent = transceiver.receiver.transport.transport._connection._query_consent_task
                if consent is not None:
                    consent.cancel()

    async def _run_task(self, work: Work, essential: bool) -> None:
        try:
            await work()
        except RefusedError as error:
            self.session.send(error.message())
        except Exception as error:  # noqa: BLE001 (one connection's fault is not the server's)
            _LOG.exception("a WebRTC connection failed", exc_info=error, extra={"session": self.session.id})
        if essential:
            self._ended.set()

    async def _wait_for_session_end(self) -> None:
        listener = self.session.add_listener()
        try:
            while self.session.ended is None:
                await listener.get()
        finally:
            self.session.remove_listener(listener)

    def _on_state_change(self) -> None:
        state = self.rtc.connectionState
        if state == "connected" and not self.connected and not self._ended.is_set():
            self.connected = True
            self.session.connections += 1
        elif state in ("failed", "closed"):
            self._ended.set()

    def _end_unconnected(self) -> None:
        if not self.connected:
            self._ended.set()


class _SessionConnections:
    """Connections of one session."""

    def __init__(self, session: Session) -> None:
        self.by_id: dict[str, Connection] = {}
        self.audio = AudioRelay(session.clock)
        self.lock = asyncio.Lock()  # one offer at a time

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.by_id.pop(connection.id, None)

    def of(self, kind: Kind) -> list[Connection]:
        """List the connections of a kind."""
        return [connection for connection in self.by_id.values() if connection.kind == kind]


class Connections:
    """All WebRTC connections of the server. Event loop only."""

    def __init__(self, sessions: SessionRegistry) -> None:
        """
        Raises:
            InputError: the configuration names an ICE server that is none.
        """
        self._registry, self._config = sessions, sessions.server
        servers = [read_ice_server(url) for url in self._config.ice_servers]
        self._rtc_config = RTCConfiguration(iceServers=servers)  # empty, not None: aiortc would ask a public server
        self._by_session: WeakKeyDictionary[Session, _SessionConnections] = WeakKeyDictionary()

    def __len__(self) -> int:
        return sum(len(found.by_id) for found in self._by_session.values())

    async def answer_whip(self, session: Session, offer: Offer) -> tuple[Connection, str]:
        """Answer a client whose video drives the session from now on, in place of the one before.

        Returns:
            The connection and the answer's SDP.

        Raises:
            RefusedError: the offer cannot be answered. The connection before stays.
        """
        found = self._of(session)
        async with found.lock:
            before = found.of("whip")
            connection = self._add(session, "whip", offer, found)

            @connection.rtc.on("track")
            def start(track: MediaStreamTrack) -> None:
                if track.kind == "video":
                    work = partial(receive_video, track, session, self._config.frame_pixels)
                else:
                    work = partial(relay_audio, track, session, found.audio)
                connection.add_task(work, essential=track.kind == "video")

            answer = await self._answer(connection)
            for old in before:
                await old.close()
        return connection, answer

    async def answer_whep(self, session: Session, offer: Offer) -> tuple[Connection, str]:
        """Answer a client that views the result, with the driver's audio.

        Returns:
            The connection and the answer's SDP.

        Raises:
            RefusedError: the offer cannot be answered, there are too many viewers, or the model is not loaded.
        """
        found, limit, wait_s = self._of(session), self._config.webrtc_viewers, self._config.retry_after_s
        async with found.lock:
            if len(found.of("whep")) >= limit:
                message = f"{limit} viewers see this session by WebRTC already: close one of them"
                raise RefusedError("server_full", message, retry_after_s=wait_s)
            engine = self._registry.worker.engine
            if engine is None:
                raise RefusedError("not_ready", self._registry.worker.message, retry_after_s=wait_s)
            connection = self._add(session, "whep", offer, found)
            track = ResultTrack(session, engine.image_size, self._config.repeat_s)
            connection.rtc.addTransceiver(track, direction="sendonly").setCodecPreferences(_codecs())
            if offer.has_audio:
                connection.rtc.addTransceiver(AudioTrack(found.audio, session.clock), direction="sendonly")
            return connection, await self._answer(connection)

    def find(self, session: Session, kind: Kind, ident: str) -> Connection:
        """Return a session's connection.

        Raises:
            RefusedError: there is none with this id, or it has ended.
        """
        found = self._by_session.get(session)
        connection = found.by_id.get(ident) if found else None
        if connection is None or connection.kind != kind:
            raise RefusedError("not_found", "no such connection: it has ended, or the address is wrong")
        return connection

    async def trickle(self, connection: Connection, found: Trickle) -> None:
        """Add ICE candidates that the client found after its offer.

        Raises:
            RefusedError: an ICE restart, which is not supported.
        """
        if not found.ice_ufrags <= connection.offer.ice_ufrags:
            raise RefusedError("unusable_input", "ICE restarts are not supported: send a new offer instead")
        with suppress(TimeoutError):  # of names that nobody resolves
            async with asyncio.timeout(self._config.negotiate_s):
                for candidate in found.candidates:
                    await connection.rtc.addIceCandidate(candidate)
                if found.complete:
                    await connection.rtc.addIceCandidate(None)

    async def close_all(self) -> None:
        """End all; returns when nothing is left of them."""
        every = [connection for found in self._by_session.values() for connection in found.by_id.values()]
        await asyncio.gather(*(connection.close() for connection in every))

    def _of(self, session: Session) -> _SessionConnections:
        if session not in self._by_session:
            self._by_session[session] = _SessionConnections(session)
        return self._by_session[session]

    def _add(self, session: Session, kind: Kind, offer: Offer, found: _SessionConnections) -> Connection:
        connection = Connection(session, kind, offer, RTCPeerConnection(self._rtc_config))
        found.by_id[connection.id] = connection
        connection.start(self._config.connect_s, found.remove)
        return connection

    async def _answer(self, connection: Connection) -> str:
        rtc = connection.rtc
        try:
            async with asyncio.timeout(self._config.negotiate_s):
                await rtc.setRemoteDescription(RTCSessionDescription(connection.offer.sdp, "offer"))
                await rtc.setLocalDescription(await rtc.createAnswer())
            answer = rtc.localDescription.sdp
        except BaseException as error:
            await connection.close()
            if not isinstance(error, Exception):  # the request was cancelled
                raise
            raise _refusal(connection.session, error) from None
        if "a=candidate:" not in answer:
            await connection.close()
            raise RefusedError("not_ready", "this machine has no network address that WebRTC could use")
        return answer


def _codecs() -> list[Any]:
    known = RTCRtpSender.getCapabilities("video").codecs
    return [codec for name in _CODECS for codec in known if codec.mimeType == name]


def _refusal(session: Session, error: Exception) -> RefusedError:
    if session.ended is not None:
        return RefusedError("not_found", f"the session has ended: {session.ended}")
    if isinstance(error, TimeoutError):
        return RefusedError(
            "bad_request", "the offer could not be answered in time: its addresses cannot be resolved"
        )
    _LOG.info("a WebRTC offer was refused", exc_info=error, extra={"session": session.id})
    return RefusedError("bad_request", "the offer cannot be used: no codec in common (VP8, H.264, Opus), or broken")
