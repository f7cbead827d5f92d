"""Order of the channels of sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.error import BlockingIOError as AVBlockingIOError
from av.error import EOFError as AVEOFError
from av.filter import Graph

# FFmpeg's own order (libavutil/channel_layout.h).
_NAMES = (
    "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR DL DR WL WR SDL SDR LFE2 TSL TSR BFC BFL BFR "
    "SSL SSR TTL TTR"
)
_NATIVE = {name: place for place, name in enumerate(_NAMES.split())}


def native_order(context: AudioCodecContext) -> list[int]:
    """Let a decoder name its channels in FFmpeg's own order, before it opens.

    PyAV frees a layout that lists its channels one by one (a custom order) twice: once for the decoder, once for each
    ``AudioLayout`` that was made from it. Replaced here, the list has one owner.

    Returns:
        For each channel wanted, in native order, its place in what the decoder will give: all of them, or the first
        two of more channels than any layout has.
    """
    found = context.layout
    names = [channel.name for channel in found.channels]
    places = range(len(names))
    if set(names) <= _NATIVE.keys() and len(set(names)) == len(names):
        order = sorted(places, key=lambda place: _NATIVE[names[place]])
        context.layout = "+".join(names[place] for place in order)
        return order
    try:
        context.layout = f"{len(names)}c"  # the usual ones for so many
    except ValueError:
        context.layout = f"{len(names)}C"  # so many, without names
        return [0, 1]
    return list(places)


def reordered(frames: Iterator[AudioFrame], order: Sequence[int]) -> Iterator[AudioFrame]:
    """The channels of ``frames`` that ``order`` names, as ``native_order`` gives it."""
    graph: Graph | None = None
    for frame in frames:
        if list(order) == list(range(frame.layout.nb_channels)):
            yield frame
            continue
        graph = graph or _graph(frame, order)
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _graph(frame: AudioFrame, order: Sequence[int]) -> Graph:
    graph, layout, count = Graph(), frame.layout.name, frame.layout.nb_channels
    stated = {"sample_rate": str(frame.sample_rate), "sample_fmt": frame.format.name, "channels": str(count)}
    if len(order) == count:
        stated["channel_layout"] = layout
    else:
        layout = "stereo"
    source = graph.add("abuffer", time_base=str(frame.time_base), **stated)
    mapped = graph.add("channelmap", map="|".join(map(str, order)), channel_layout=layout)
    graph.link_nodes(source, mapped, graph.add("abuffersink")).configure()
    return graph


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (AVBlockingIOError, AVEOFError):
            return
        if isinstance(frame, AudioFrame):
            yield frame
