"""Text of WebRTC clients: candidates that are kept, fragments, addresses of ICE servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.live.errors import RefusedError
from personalive.server.webrtc.sdp import read_ice_server, read_offer, read_trickle

HOST = "a=candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host"
HIDDEN = "a=candidate:2 1 udp 2130706431 6d2f0a5e.local 50000 typ host"
BEHIND = "a=candidate:3 1 UDP 1694498815 198.51.100.7 50001 typ srflx raddr 192.0.2.1 rport 50000"
UNUSABLE = [
    "a=candidate:1 1 tcp 2130706431 192.0.2.1 9 typ host tcptype active",
    "a=candidate:1 2 udp 2130706431 192.0.2.1 50000 typ host",
    "a=candidate:1 1 udp 2130706431 192.0.2.1 99999 typ host",
    "a=candidate:1 1 udp 2130706431 192.0.2.1 0 typ host",
    "a=candidate:1 1 udp 2130706431 example.org 50000 typ host",
    "a=candidate:1 1 udp x 192.0.2.1 50000 typ host",
    "a=candidate:1 1 udp 2130706431 192.0.2.1 50000 typ srflx raddr 0.0.0.0 rport x",
    "a=candidate:1 1 udp 2130706431 192.0.2.1 50000 typ odd",
    "a=candidate:1 1 udp",
]
OFFER = [
    "v=0",
    "o=- 1 1 IN IP4 0.0.0.0",
    "s=-",
    "t=0 0",
    "a=group:BUNDLE 0",
    "m=video 9 UDP/TLS/RTP/SAVPF 97",
    "c=IN IP4 0.0.0.0",
    "a=sendonly",
    "a=mid:0",
    "a=rtcp-mux",
    "a=rtpmap:97 VP8/90000",
    "a=ice-ufrag:abcd",
    "a=ice-pwd:0123456789012345678901",
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
    "a=setup:actpass",
]


def offer(*more: str) -> str:
    return "\r\n".join([*OFFER, *more]) + "\r\n"


def test_candidates_that_cannot_be_reached_are_left_out():
    found = read_offer(offer(HOST, *UNUSABLE, HIDDEN, BEHIND), "sends")
    assert found.sdp == offer(HOST, HIDDEN, BEHIND)
    assert (found.mids, found.ice_ufrags, found.has_audio) == (("0",), {"abcd"}, False)


def test_candidates_are_limited():
    many = [HOST.replace("50000", str(50_000 + place)) for place in range(100)]
    assert read_offer(offer(*many), "sends").sdp.count("a=candidate") == 32


@pytest.mark.parametrize("value", ["x" * 257, "ä"])
def test_credentials_are_limited(value):
    with pytest.raises(RefusedError, match="a=ice-pwd"):
        read_offer(offer(f"a=ice-pwd:{value}"), "sends")


def test_a_fragment_says_whose_candidates_they_are():
    text = "\n".join(
        ["a=ice-ufrag:abcd", "m=video 9 X 0", "a=mid:v", HOST, *UNUSABLE, "a=mid:w", BEHIND, "a=end-of-candidates"]
    )
    found = read_trickle(text, ("0",))
    assert [(item.sdpMid, item.ip, item.port) for item in found.candidates] == [
        ("v", "192.0.2.1", 50_000),
        ("w", "198.51.100.7", 50_001),
    ]
    assert found.complete
    assert found.ice_ufrags == {"abcd"}
    assert read_trickle(HOST, ("0",)).candidates[0].sdpMid == "0"


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from([*OFFER, HOST, *UNUSABLE, "a=", "m=", "=", "a=mid"])).map("\n".join)
)
def test_no_text_does_worse_than_being_refused(text):
    for read in (lambda: read_offer(text, "sends"), lambda: read_trickle(text, ("0",))):
        try:
            read()
        except RefusedError as error:
            assert error.kind == "bad_request"


@pytest.mark.parametrize(
    ("url", "plain", "user", "password"),
    [
        ("stun:stun.example.org", "stun:stun.example.org", None, None),
        ("stun:192.0.2.1:19302", "stun:192.0.2.1:19302", None, None),
        (
            "turn:me:p@ss@turn.example.org:3478?transport=tcp",
            "turn:turn.example.org:3478?transport=tcp",
            "me",
            "p@ss",
        ),
        ("turns:turn.example.org", "turns:turn.example.org", None, None),
    ],
)
def test_ice_servers(url, plain, user, password):
    server = read_ice_server(url)
    assert (server.urls, server.username, server.credential) == (plain, user, password)


@pytest.mark.parametrize(
    "url", ["", "example.org", "http://example.org", "stun:", "stun:host?transport=udp", "turn:a:b@"]
)
def test_what_is_no_ice_server_is_told(url):
    with pytest.raises(InputError, match="give stun:HOST"):
        read_ice_server(url)
