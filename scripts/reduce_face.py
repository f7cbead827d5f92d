"""Make the reduced morphable face of ``src/personalive/assets/face`` from ICT-FaceKit's.

Usage: python scripts/reduce_face.py ICT_FACE.npz [OUT.npz]

ICT_FACE.npz holds ICT-FaceKit's model (MIT, (c) 2020 USC Institute for Creative Technologies) as arrays: ``neutral``
(V, 3) with y up and +z towards the camera, ``triangles``, ``expressions`` (E, V, 3) with ``expression_names`` and
``identities`` (I, V, 3), one standard deviation each.

Edges are collapsed onto one of their two ends (quadric error), so every vertex that stays keeps its own rows of the
displacement fields. The rims of lids and lips and the landmark vertices are never removed.
"""

from __future__ import annotations

import heapq
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "src" / "personalive" / "assets" / "face" / "face.npz"
IDENTITIES = 30
FACE_END, HEAD_END, MOUTH_END, GUMS, TEETH, EYEBALLS = 9409, 11248, 13294, 14062, 17039, 21451
SKIN, MOUTH, GUM, TOOTH, EYE = range(5)  # part labels of the reduced face
LEFT_OUT = ("PupilDilate_L", "PupilDilate_R")
FEWEST = {"skin": 2400, "gums": 170, "teeth": 560}  # vertices that stay

# Landmarks of MediaPipe's 478 and their vertices: nearest on average over 76 fitted frontal photographs (ours).
POINTS = {
    10: 1851, 338: 3641, 297: 4059, 332: 3245, 284: 2561, 251: 2524, 389: 2503, 356: 4085, 454: 3457, 109: 1427,
    67: 1859, 103: 1025, 54: 320, 21: 283, 162: 262, 127: 1885, 234: 1239, 151: 1734, 9: 1398, 8: 2012, 168: 977,
    6: 1307, 197: 4527, 195: 4948, 5: 4840, 4: 4857, 1: 4553, 2: 4558, 50: 1204, 280: 3422, 117: 17, 346: 2258,
    205: 30, 425: 2271, 187: 942, 411: 3182, 36: 2172, 266: 4365, 48: 4852, 278: 5311, 64: 4757, 294: 5313, 18: 10,
    200: 8, 199: 964, 175: 962, 152: 966, 148: 1496, 377: 3710, 172: 1720, 397: 3925, 136: 765, 365: 3006, 93: 1051,
    323: 3271, 132: 1896, 361: 4096, 58: 370, 288: 2611, 70: 1947, 63: 494, 105: 1031, 66: 2043, 107: 1402, 55: 2003,
    65: 2036, 52: 1916, 53: 79, 46: 77, 300: 3213, 293: 2735, 334: 3251, 296: 4239, 336: 3616, 285: 4203, 295: 4232,
    282: 4116, 283: 2320, 276: 2318,
}  # fmt: skip
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 377, 152, 148, 136, 172, 58, 132, 93,
        234, 127, 162, 21, 54, 103, 67, 109]  # fmt: skip
# Rims: a path over vertices, the contour's landmarks, and how far along it these lie (means of the same photographs).
_LID_UP = (0.0, 0.059, 0.132, 0.243, 0.406, 0.573, 0.758, 0.916, 1.0)
_LID_LOW = (0.0, 0.096, 0.186, 0.306, 0.484, 0.661, 0.832, 0.949, 1.0)
_OUT_UP, _OUT_LOW = (0.0, 0.115, 0.258, 0.447, 0.709, 1.0), (0.0, 0.159, 0.327, 0.533, 0.758, 1.0)
_IN_UP, _IN_LOW = (0.0, 0.142, 0.296, 0.487, 0.723, 1.0), (0.0, 0.181, 0.328, 0.519, 0.740, 1.0)
RIMS = {
    "lid_upper_right": ((1507, 1542, 1537, 1528), (33, 246, 161, 160, 159, 158, 157, 173, 133), _LID_UP),
    "lid_lower_right": ((1507, 1511, 1518, 1528), (33, 7, 163, 144, 145, 153, 154, 155, 133), _LID_LOW),
    "lid_upper_left": ((3721, 3756, 3751, 3742), (263, 466, 388, 387, 386, 385, 384, 398, 362), _LID_UP),
    "lid_lower_left": ((3721, 3725, 3732, 3742), (263, 249, 390, 373, 374, 380, 381, 382, 362), _LID_LOW),
    "lip_outer_upper_right": ((5708, 5695, 2081, 0), (61, 185, 40, 39, 37, 0), _OUT_UP),
    "lip_outer_upper_left": ((6213, 6200, 4275, 0), (291, 409, 270, 269, 267, 0), _OUT_UP),
    "lip_outer_lower_right": ((5708, 5841, 5957, 5518), (61, 146, 91, 181, 84, 17), _OUT_LOW),
    "lip_outer_lower_left": ((6213, 6346, 6461, 5518), (291, 375, 321, 405, 314, 17), _OUT_LOW),
    "lip_inner_upper_right": ((5702, 5711, 5533), (78, 191, 80, 81, 82, 13), _IN_UP),
    "lip_inner_upper_left": ((6207, 6216, 5533), (308, 415, 310, 311, 312, 13), _IN_UP),
    "lip_inner_lower_right": ((5702, 5966, 5517), (78, 95, 88, 178, 87, 14), _IN_LOW),
    "lip_inner_lower_left": ((6207, 6470, 5517), (308, 324, 318, 402, 317, 14), _IN_LOW),
}


def neighbours(triangles: np.ndarray) -> dict[int, set[int]]:
    """Vertices that share an edge, by vertex."""
    near: dict[int, set[int]] = defaultdict(set)
    for a, b, c in triangles.tolist():
        near[a] |= {b, c}
        near[b] |= {a, c}
        near[c] |= {a, b}
    return near


def shortest_path(near: dict[int, set[int]], points: np.ndarray, start: int, end: int) -> list[int]:
    """Vertices of the shortest way over edges, both ends included."""
    far, back, queue = {start: 0.0}, {}, [(0.0, start)]
    while queue:
        d, at = heapq.heappop(queue)
        if at == end:
            break
        for other in near[at]:
            step = d + float(np.linalg.norm(points[at] - points[other]))
            if step < far.get(other, np.inf):
                far[other], back[other] = step, at
                heapq.heappush(queue, (step, other))
    path = [end]
    while path[-1] != start:
        path.append(back[path[-1]])
    return path[::-1]


def rim_paths(points: np.ndarray, triangles: np.ndarray) -> dict[str, list[int]]:
    """Vertices of each rim in order."""
    near = neighbours(triangles)
    paths = {}
    for name, (corners, _, _) in RIMS.items():
        path = [corners[0]]
        for a, b in pairwise(corners):
            path += shortest_path(near, points, a, b)[1:]
        paths[name] = path
    return paths


def plane_quadrics(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squared distance to the triangles around each vertex, (V, 4, 4), and their areas, (V,)."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    double = np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    normal /= double
    plane = np.hstack([normal, -(normal * a).sum(1, keepdims=True)])
    each = plane[:, :, None] * plane[:, None] * double[:, :, None]
    total, area = np.zeros((len(points), 4, 4)), np.zeros(len(points))
    for i in range(3):
        np.add.at(total, triangles[:, i], each)
        np.add.at(area, triangles[:, i], double[:, 0])
    return total, area


class Collapse:
    """Edge collapse onto an end, cheapest first, until ``keep`` vertices are left."""

    def __init__(
        self, points: np.ndarray, triangles: np.ndarray, worth: np.ndarray, fixed: set[int], label: np.ndarray
    ):
        self.points, self.worth, self.fixed, self.label = points, worth, fixed, label
        self.faces = dict(enumerate(triangles.tolist()))
        self.at: dict[int, set[int]] = defaultdict(set)
        for k, face in self.faces.items():
            for v in face:
                self.at[v].add(k)
        self.quadrics, self.area = plane_quadrics(points, triangles)
        self.stamp: dict[int, int] = defaultdict(int)
        self.queue: list[tuple[float, int, int, int, int]] = []
        edges = np.unique(
            np.sort(np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])), axis=0
        )
        for a, b in edges.tolist():
            if a != b:
                self._offer(a, b)
                self._offer(b, a)

    def run(self, keep: int) -> np.ndarray:
        """Triangles that are left, (T, 3)."""
        left = len(self.at)
        while left > keep and self.queue:
            _, gone, kept, s0, s1 = heapq.heappop(self.queue)
            if (s0, s1) != (self.stamp[gone], self.stamp[kept]) or gone not in self.at or kept not in self.at:
                continue
            if self._allowed(gone, kept):
                self._apply(gone, kept)
                left -= 1
        return np.array(list(self.faces.values()))

    def _near(self, v: int) -> set[int]:
        return {w for k in self.at[v] for w in self.faces[k]} - {v}

    def _rim(self, v: int) -> set[int]:
        """Neighbours over edges with one triangle only."""
        count: dict[int, int] = defaultdict(int)
        for k in self.at[v]:
            for w in self.faces[k]:
                count[w] += w != v
        return {w for w, n in count.items() if n == 1}

    def _offer(self, gone: int, kept: int) -> None:
        if gone in self.fixed or self.label[gone] not in (self.label[kept], MOUTH):
            return
        p = np.append(self.points[kept], 1.0)
        flat = p @ self.quadrics[gone] @ p / (self.area[gone] + 1e-12)
        span = float(np.sum((self.points[kept] - self.points[gone]) ** 2))
        cost = float((flat + 0.004 * span) * span**0.5 * self.worth[gone])
        heapq.heappush(self.queue, (cost, gone, kept, self.stamp[gone], self.stamp[kept]))

    def _allowed(self, gone: int, kept: int) -> bool:
        shared = self.at[gone] & self.at[kept]
        if not shared or len(self._near(gone) & self._near(kept)) != len(shared):
            return False
        if self._rim(gone) and kept not in self._rim(gone):
            return False
        for k in self.at[gone] - shared:
            old = self.points[self.faces[k]]
            new = self.points[[kept if v == gone else v for v in self.faces[k]]]
            n0, n1 = (np.cross(q[1] - q[0], q[2] - q[0]) for q in (old, new))
            if n0 @ n1 < 0.35 * np.linalg.norm(n0) * np.linalg.norm(n1) or np.linalg.norm(n1) < 1e-4:
                return False
        return True

    def _apply(self, gone: int, kept: int) -> None:
        for k in list(self.at[gone]):
            face = [kept if v == gone else v for v in self.faces[k]]
            for v in self.faces[k]:
                self.at[v].discard(k)
            if len(set(face)) < 3:
                del self.faces[k]
                continue
            self.faces[k] = face
            for v in face:
                self.at[v].add(k)
        del self.at[gone]
        self.quadrics[kept] += self.quadrics[gone]
        self.area[kept] += self.area[gone]
        self.stamp[kept] += 1
        for other in self._near(kept):
            self._offer(kept, other)
            self._offer(other, kept)


def skin_worth(points: np.ndarray, paths: dict[str, list[int]]) -> np.ndarray:
    """Weight of an error at each vertex: high at lids and lips, low at the back of the head and the neck."""

    def close(name: str, reach: float) -> np.ndarray:
        rim = points[sorted({v for key, path in paths.items() if key.startswith(name) for v in path})]
        d = np.min(np.linalg.norm(points[:, None] - rim[None], axis=2), axis=1)
        return np.exp(-((d / reach) ** 2))

    worth = 1.0 + 16.0 * close("lid", 1.2) + 10.0 * close("lip", 1.2)
    behind = np.clip((4.0 - points[:, 2]) / 3.0, 0, 1)
    low = np.clip((-9.0 - points[:, 1]) / 2.0, 0, 1)
    return worth * (1.0 - 0.93 * np.maximum(behind, low))


def eye_domes(model: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Domes, the front of both eyeballs: points, triangles, identity fields (I, n, 3), centre and radius (2, 4)."""
    everything, faces, fields, balls = [], [], [], []
    for first, last in ((23791, 24591), (22221, 23021)):  # the person's right eye, then the left one
        ball = model["neutral"][first:last]
        low, high = ball.min(0), ball.max(0)
        radius = float((high - low)[:2].mean() / 2)
        centre = np.array([*((low + high)[:2] / 2), low[2] + radius])
        angles, turns = np.radians(np.linspace(0, 75, 6)), np.radians(np.arange(0, 360, 30))
        rings = [np.array([[0.0, 0.0, radius]])]
        for a in angles[1:]:
            flat = np.stack([np.cos(turns), np.sin(turns)], 1) * radius * np.sin(a)
            rings.append(np.hstack([flat, np.full((len(turns), 1), radius * np.cos(a))]))
        start, n = sum(len(p) for p in everything), len(turns)
        for k in range(n):
            faces.append([start, start + 1 + k, start + 1 + (k + 1) % n])
            for r in range(len(rings) - 2):
                a, b = start + 1 + r * n, start + 1 + (r + 1) * n
                faces += [[a + k, b + k, b + (k + 1) % n], [a + k, b + (k + 1) % n, a + (k + 1) % n]]
        everything.append(np.vstack(rings) + centre)
        mean = model["identities"][:IDENTITIES, first:last].astype(np.float64).mean(1, keepdims=True)
        fields.append(np.repeat(mean, len(everything[-1]), axis=1))
        balls.append([*centre, radius])
    return np.vstack(everything), np.array(faces), np.concatenate(fields, axis=1), np.array(balls)


def landmark_table(paths: dict[str, list[int]], points: np.ndarray) -> dict[int, tuple[int, int, float]]:
    """Vertex -> (landmark a, landmark b, weight of b)."""
    table = {vertex: (mark, mark, 0.0) for mark, vertex in POINTS.items()}
    for name, path in paths.items():
        _, contour, along = RIMS[name]
        steps = np.linalg.norm(np.diff(points[path], axis=0), axis=1)
        for vertex, f in zip(path, np.r_[0, np.cumsum(steps)] / steps.sum(), strict=True):
            k = min(int(np.searchsorted(along, f, side="right")) - 1, len(along) - 2)
            weight = (f - along[k]) / (along[k + 1] - along[k])
            table[vertex] = (contour[k], contour[k + 1], float(weight))
    return table


def oval_share(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """1 well inside the face's oval, 0 on it and beyond, (V,)."""
    ring = points[[POINTS[mark] for mark in OVAL]][:, :2]
    a, b = ring, np.roll(ring, -1, axis=0)
    p = vertices[:, None, :2]
    t = np.clip(((p - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
    distance = np.linalg.norm(p - a - t[..., None] * (b - a), axis=-1).min(1)
    crosses = (a[:, 1] > p[..., 1]) != (b[:, 1] > p[..., 1])
    x = a[:, 0] + (p[..., 1] - a[:, 1]) / (b[:, 1] - a[:, 1] + 1e-12) * (b[:, 0] - a[:, 0])
    inside = (crosses & (p[..., 0] < x)).sum(1) % 2 == 1
    return np.clip(np.where(inside & (vertices[:, 2] > 2), distance, 0.0) / 1.2, 0, 1)


def reduce_face(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All arrays of the asset."""
    points, triangles = model["neutral"].astype(np.float64), model["triangles"].astype(np.int64)
    label = np.full(len(points), SKIN)
    label[HEAD_END:MOUTH_END], label[GUMS:TEETH], label[TEETH:EYEBALLS] = MOUTH, GUM, TOOTH
    paths = rim_paths(points, triangles[(triangles < FACE_END).all(1)])
    table = landmark_table(paths, points)
    worth = skin_worth(points, paths)
    kept, faces = [], []
    inside = points[:, 1].copy()
    for name, chosen in (
        ("skin", (triangles < MOUTH_END).all(1) & (inside[triangles] > -15).all(1)),
        ("gums", ((triangles >= GUMS) & (triangles < TEETH)).all(1)),
        ("teeth", ((triangles >= TEETH) & (triangles < EYEBALLS)).all(1)),
    ):
        weight = worth if name == "skin" else 1.0 + 4.0 * (points[:, 2] > 8.5)
        left = Collapse(points, triangles[chosen], weight, set(table), label).run(FEWEST[name])
        faces.append(left)
        kept.append(np.unique(left))
    rows = np.concatenate(kept)
    number = np.full(len(points), -1)
    number[rows] = np.arange(len(rows))
    domes, dome_faces, dome_fields, balls = eye_domes(model)
    vertices = np.vstack([points[rows], domes])
    order = sorted(table, key=lambda v: number[v])
    names = [str(n) for n in model["expression_names"]]
    used = [k for k, n in enumerate(names) if n not in LEFT_OUT]
    expressions = np.zeros((len(used), len(vertices), 3))
    expressions[:, : len(rows)] = model["expressions"][used][:, rows]
    identities = np.concatenate([model["identities"][:IDENTITIES, rows], dome_fields], axis=1)
    rims = {f"rim_{name}": number[path].astype(np.int16) for name, path in paths.items()}
    return {
        "neutral": vertices.astype(np.float16),
        "triangles": np.vstack([*(number[f] for f in faces), dome_faces + len(rows)]).astype(np.int16),
        "part": np.concatenate([label[rows], np.full(len(domes), EYE)]).astype(np.uint8),
        "oval": (255 * oval_share(points, vertices)).astype(np.uint8),
        "expression_names": np.array([names[k] for k in used]),
        "expressions": expressions.astype(np.float16),
        "identities": identities.astype(np.float16),
        "eyeballs": balls.astype(np.float32),
        "landmark_vertices": number[order].astype(np.int16),
        "landmark_pairs": np.array([table[v][:2] for v in order], np.int16),
        "landmark_weights": np.array([table[v][2] for v in order], np.float32),
        **rims,
    }


def main() -> None:
    """Write the asset and print its size."""
    source, out = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else OUT
    with np.load(source) as stored:
        arrays = reduce_face({name: stored[name] for name in stored.files})
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **arrays)
    print(
        f"{out}: {len(arrays['neutral'])} vertices, {len(arrays['triangles'])} triangles, {out.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
