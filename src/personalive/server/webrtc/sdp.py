"""Parsers of WebRTC text: offers, trickled ICE candidates, and addresses of ICE servers.

Offers are untrusted, and aiortc fails on unexpected ones late, in a task of its own. So all that it takes for granted
is checked here first.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from aiortc import RTCIceCandidate, RTCIceServer
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from personalive.errors import InputError
from personalive.live.errors import RefusedError

_MAX_CANDIDATES = 32  # of one client; browsers give about ten
_MAX_CREDENTIAL = 256  # characters of ICE names and passwords, RFC 8839 section 5.4
_CANDIDATE = "a=candidate:"
_DIRECTIONS = {"sends": ("sendonly", "sendrecv"), "receives": ("recvonly", "sendrecv")}


@dataclass(frozen=True, slots=True)
class Offer:
    """Session description that can be answered."""

    sdp: str
    mids: tuple[str, ...]
    ice_ufrags: frozenset[str]
    has_audio: bool


@dataclass(frozen=True, slots=True)
class Trickle:
    """Candidates found after the offer was sent."""

    candidates: tuple[RTCIceCandidate, ...]
    complete: bool  # no more will come
    ice_ufrags: frozenset[str]


def read_offer(text: str, client: Literal["sends", "receives"]) -> Offer:
    """Check an offer of one video that the client sends, or receives, and at most one audio.

    Candidates that cannot be reached from here (TCP, names that only others can resolve) are left out.

    Raises:
        RefusedError: no such offer.
    """
    text = _with_usable_candidates(text)
    try:
        description = SessionDescription.parse(text)
    except Exception:  # noqa: BLE001 (the parser asserts and indexes: whatever fails, it is the text)
        raise _bad("not a session description (SDP)") from None
    media = description.media
    kinds = sorted(part.kind for part in media)
    if kinds not in (["video"], ["audio", "video"]):
        raise _bad("offer one video and at most one audio, nothing else")
    ufrags = frozenset(_check_media(part) for part in media)
    video = next(part for part in media if part.kind == "video")
    if video.direction not in _DIRECTIONS[client]:
        raise _bad(f"its video is {video.direction}: offer {' or '.join(_DIRECTIONS[client])}")
    mids = tuple(part.rtp.muxId for part in media)
    bundled = [str(mid) for group in description.group if group.semantic == "BUNDLE" for mid in group.items]
    if len(set(mids)) != len(mids) or not set(bundled) <= set(mids) or len(set(bundled)) != len(bundled):
        raise _bad("its media sections have no clear names (a=mid, a=group:BUNDLE)")
    if any(part.ice_candidates_complete for part in media) and not any(part.ice_candidates for part in media):
        raise _bad("it has no address that can be reached from here (a=candidate), and says that none will follow")
    return Offer(text, mids, ufrags, "audio" in kinds)


def read_trickle(text: str, mids: tuple[str, ...]) -> Trickle:
    """Read a fragment of RFC 8840.

    Args:
        mids: of the offer; candidates that name none are for the first.

    Raises:
        RefusedError: not such a fragment.
    """
    mid, candidates, complete, ufrags = mids[0], [], False, set()
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")
        elif line.startswith("a=ice-ufrag:"):
            ufrags.add(line.removeprefix("a=ice-ufrag:"))
        elif line == "a=end-of-candidates":
            complete = True
        elif _is_usable(line) and len(candidates) < _MAX_CANDIDATES:
            candidate = candidate_from_sdp(line.removeprefix(_CANDIDATE))
            candidate.sdpMid = mid
            candidates.append(candidate)
        elif not re.match(r"[a-z]=", line) and line:
            raise RefusedError("bad_request", "the fragment is not made of lines of SDP")
    return Trickle(tuple(candidates), complete, frozenset(ufrags))


def read_ice_server(url: str) -> RTCIceServer:
    """Parse ``stun:HOST[:PORT]`` or ``turn:[USER:PASSWORD@]HOST[:PORT][?transport=tcp]``, also ``turns:``.

    Raises:
        InputError: neither.
    """
    scheme, _, rest = url.partition(":")
    login, _, address = rest.rpartition("@")
    user, _, password = login.partition(":")
    plain = f"{scheme}:{address}"
    try:
        parse_stun_turn_uri(plain)
    except ValueError:
        raise InputError(f"ICE server {plain!r}: give stun:HOST[:PORT] or turn:USER:PASSWORD@HOST[:PORT]") from None
    return RTCIceServer(plain, username=user or None, credential=password or None)


def _check_media(part: MediaDescription) -> str:
    """Check that a media section has all that a connection needs, and return its ICE user fragment."""
    ice, dtls = part.ice, part.dtls
    if not part.rtp.muxId:
        raise _bad("a media section has no a=mid")
    if ice is None or not (_is_credential(ice.usernameFragment) and _is_credential(ice.password)):
        raise _bad("a media section has no usable a=ice-ufrag and a=ice-pwd")
    if dtls is None or not dtls.fingerprints:
        raise _bad("a media section has no a=fingerprint or no a=setup")
    if not part.rtcp_mux:
        raise _bad("a media section has no a=rtcp-mux")
    if part.direction is None:
        raise _bad("a media section says neither sendonly, recvonly nor sendrecv")
    if not part.rtp.codecs:
        raise _bad("a media section has no codecs")
    return str(ice.usernameFragment)


def _is_credential(value: str | None) -> bool:
    return value is not None and 0 < len(value) <= _MAX_CREDENTIAL and value.isascii()


def _with_usable_candidates(text: str) -> str:
    count, lines = 0, []
    for line in text.splitlines():
        if line.startswith(_CANDIDATE):
            count += 1
            if count > _MAX_CANDIDATES or not _is_usable(line):
                continue
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"


def _is_usable(line: str) -> bool:
    """Return whether the line is a candidate that packets can be sent to."""
    parts = line.removeprefix(_CANDIDATE).split()
    if not line.startswith(_CANDIDATE) or len(parts) < 8 or not all(parts[i].isdecimal() for i in (1, 3, 5)):
        return False
    component, protocol, host, port, kind = parts[1], parts[2], parts[4], parts[5], parts[7]
    is_reachable = host.endswith(".local") or _is_address(host)
    related = dict(zip(parts[8::2], parts[9::2], strict=False)).get("rport", "0")
    is_udp = component == "1" and protocol.lower() == "udp" and kind in ("host", "srflx", "relay")
    return is_reachable and is_udp and 0 < int(port) < 65536 and related.isdecimal()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _bad(what: str) -> RefusedError:
    return RefusedError("bad_request", f"the offer cannot be used: {what}")
