"""Whole frames out of interlaced ones, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from av.error import BlockingIOError as AVBlockingIOError
from av.error import EOFError as AVEOFError
from av.filter import Graph
from av.video.frame import VideoFrame


class Deinterlacer:
    """Passes frames on and, from the first interlaced one, makes each such frame whole; one out per frame in."""

    def __init__(self, time_base: Fraction) -> None:
        """
        Args:
            time_base: seconds per tick of the frames' time stamps.
        """
        self.used = False  # whether any frame was interlaced
        self._base = time_base
        self._graph: Graph | None = None
        self._form: tuple[int, int, str] | None = None

    def push(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Frames that are ready, in order, with times in the same time base."""
        form = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and form != self._form:  # a filter takes one size
            yield from self.flush()
        if self._graph is None and not frame.interlaced_frame:
            yield frame
            return
        if self._graph is None:
            self._graph, self._form, self.used = self._made(frame), form, True
        self._graph.push(frame)
        yield from self._pulled(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        """The frames that are still inside."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.push(None)
            yield from self._pulled(graph)

    def _made(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self._base)
        bwdif = graph.add("bwdif", mode="send_frame", deint="interlaced")
        graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        return graph

    def _pulled(self, graph: Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.pull()
            except (AVBlockingIOError, AVEOFError):
                return
            if isinstance(frame, VideoFrame):
                if frame.pts is not None and frame.time_base:  # the filter counts in halves
                    scale = frame.time_base / self._base
                    frame.pts, frame.duration = round(frame.pts * scale), round((frame.duration or 0) * scale)
                    frame.time_base = self._base
                yield frame
