"""Compiled geometry: deforming, normals and a z-buffer (ours)."""

from __future__ import annotations

import numpy as np

from personalive.synthetic.compiled import compiled
from personalive.synthetic.parts import HAIR

_HAIR = HAIR


@compiled
def deform(neutral, fields, active, weights, out):
    """out = neutral + sum of weights[i] * fields[active[i]]; all float32, fields (E, V, 3)."""
    n = neutral.shape[0]
    m = fields.shape[1]
    out[:, :] = neutral
    for k in range(active.shape[0]):
        w = weights[k]
        field = fields[active[k]]
        for i in range(m):
            out[i, 0] += w * field[i, 0]
            out[i, 1] += w * field[i, 1]
            out[i, 2] += w * field[i, 2]
    return n


@compiled
def hug_eyeballs(points, lids, share, eyes):
    """Keep the lids (vertex numbers ``lids``) in front of the eyeballs; eyes (2, 4) centre and radius."""
    for k in range(lids.shape[0]):
        i = lids[k]
        eye = eyes[0] if points[i, 0] > 0 else eyes[1]
        dx = points[i, 0] - eye[0]
        dy = points[i, 1] - eye[1]
        r = eye[3] * 1.045
        room = r * r - dx * dx - dy * dy
        if room <= 0.0:
            continue
        ball = eye[2] - np.sqrt(room)
        gap = points[i, 2] - ball
        soft = 0.014
        rise = 0.5 * (gap + np.sqrt(gap * gap + soft * soft)) - 0.15 * soft
        points[i, 2] -= rise * share[k]


@compiled
def vertex_normals(points, triangles, weld, normals):
    """Unit normals (V, 3) that point towards the viewer's side of right-then-down triangles."""
    normals[:, :] = 0.0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux = points[b, 0] - points[a, 0]
        uy = points[b, 1] - points[a, 1]
        uz = points[b, 2] - points[a, 2]
        vx = points[c, 0] - points[a, 0]
        vy = points[c, 1] - points[a, 1]
        vz = points[c, 2] - points[a, 2]
        nx = vy * uz - vz * uy
        ny = vz * ux - vx * uz
        nz = vx * uy - vy * ux
        for i in (a, b, c):
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for k in range(weld.shape[0]):
        i, j = weld[k, 0], weld[k, 1]
        near = abs(points[i, 0] - points[j, 0]) + abs(points[i, 1] - points[j, 1]) + abs(points[i, 2] - points[j, 2])
        if near < 1e-4:
            for c in range(3):
                total = normals[i, c] + normals[j, c]
                normals[i, c] = total
                normals[j, c] = total
    for i in range(normals.shape[0]):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) + 1e-12
        for c in range(3):
            normals[i, c] /= length


@compiled
def strands(phi, y, curl):
    """Strand pattern of hair at angle phi and height y, about -1..1."""
    bend = phi + 0.05 * np.sin(5.0 * y + 3.0 * phi)
    if curl > 0.5:
        return 0.5 * np.sin(34.0 * phi + 2.5 * np.sin(21.0 * y)) + 0.5 * np.sin(31.0 * y + 2.5 * np.sin(25.0 * phi))
    return 0.5 * np.sin(61.0 * bend) + 0.3 * np.sin(113.0 * bend + 1.3) + 0.2 * np.sin(29.0 * bend + 0.5 + 2.0 * y)


@compiled
def rasterise(pixels, depth, triangles, kinds, cut, rest, curl, zbuffer, ids):
    """Nearest triangle number per sample, -1 for none.

    pixels (V, 2) float32 sample coordinates, depth (V,) smaller is nearer; zbuffer and ids (H, W).
    """
    height, width = ids.shape
    ids[:, :] = -1
    zbuffer[:, :] = 1e9
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if cut[a] < -0.06 and cut[b] < -0.06 and cut[c] < -0.06:
            continue
        ax, ay = pixels[a, 0], pixels[a, 1]
        bx, by = pixels[b, 0], pixels[b, 1]
        cx, cy = pixels[c, 0], pixels[c, 1]
        x0 = max(int(np.ceil(min(ax, bx, cx))), 0)
        x1 = min(int(np.floor(max(ax, bx, cx))), width - 1)
        y0 = max(int(np.ceil(min(ay, by, cy))), 0)
        y1 = min(int(np.floor(max(ay, by, cy))), height - 1)
        if x0 > x1 or y0 > y1:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        inv = 1.0 / area
        vb_dx, vb_dy = (cy - ay) * inv, -(cx - ax) * inv
        vc_dx, vc_dy = -(by - ay) * inv, (bx - ax) * inv
        za, zb, zc = depth[a], depth[b] - depth[a], depth[c] - depth[a]
        ragged = kinds[t] == _HAIR
        for y in range(y0, y1 + 1):
            vb = (x0 - ax) * vb_dx + (y - ay) * vb_dy
            vc = (x0 - ax) * vc_dx + (y - ay) * vc_dy
            for x in range(x0, x1 + 1):
                if vb >= -1e-5 and vc >= -1e-5 and vb + vc <= 1.00001:
                    z = za + vb * zb + vc * zc
                    if z < zbuffer[y, x]:
                        keep = True
                        if ragged:
                            va = 1.0 - vb - vc
                            inside = va * cut[a] + vb * cut[b] + vc * cut[c]
                            if inside < 0.06:
                                phi = va * rest[a, 0] + vb * rest[b, 0] + vc * rest[c, 0]
                                up = va * rest[a, 1] + vb * rest[b, 1] + vc * rest[c, 1]
                                keep = inside + 0.024 * strands(phi, up, curl) > 0.0
                        if keep:
                            zbuffer[y, x] = z
                            ids[y, x] = t
                vb += vb_dx
                vc += vc_dx
