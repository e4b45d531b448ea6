"""Rendering with Pillow: no GL and integer blending, so images are equal on every machine."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vla.benchmarks.tabletop.appearance import Appearance, background
from vla.benchmarks.tabletop.web.art import load_art
from vla.benchmarks.tabletop.world import (
    ARM_REACH,
    CARD_SIDE,
    HALF_TABLE,
    HOVER_Z,
    TILE_SIDE,
    Gripper,
    Item,
)

TOP_VIEW = 2 * (HALF_TABLE + 0.01)  # m; side of the square that the top camera shows
WRIST_VIEW = 0.22  # m; side of the square that the wrist camera shows at ``HOVER_Z``
_SUPERSAMPLE = 2  # images are drawn larger by this factor and then reduced
_ANGLE_STEP = math.radians(3)  # sprites are cached for multiples of this angle
_BASE = (40, 60, 170)  # colour of a mobile base: a cross, and the outline of the arm's reach
_OUTSIDE = (70, 70, 74)  # colour beyond the table's border


@lru_cache(maxsize=1024)
def _item_image(concept: str, style: str, kind: str, px: int) -> Image.Image:
    """A tile or card without rotation: (px, px) RGBA."""
    big = px * 2
    image = Image.new("RGBA", (big, big))
    draw = ImageDraw.Draw(image)
    if kind == "tile":
        draw.rounded_rectangle(
            (0, 0, big - 1, big - 1),
            big // 6,
            fill=(255, 255, 252, 255),
            outline=(120, 112, 100, 255),
            width=max(1, big // 20),
        )
        share = 0.9
    else:
        draw.rectangle(
            (0, 0, big - 1, big - 1),
            fill=(214, 226, 255, 255),
            outline=(70, 110, 220, 255),
            width=max(2, big // 12),
        )
        share = 0.8
    side = round(big * share)
    art = Image.fromarray(load_art(concept, style)).resize(
        (side, side), Image.Resampling.BOX if side < 72 else Image.Resampling.BICUBIC
    )
    image.alpha_composite(art, ((big - side) // 2, (big - side) // 2))
    return image.reduce(2)


@lru_cache(maxsize=8192)
def item_sprite(
    concept: str, style: str, kind: str, px: int, angle: int
) -> tuple[Image.Image, Image.Image]:
    """A rotated tile or card and its shadow, both RGBA; ``angle`` in steps of 3 degrees."""
    sprite = _item_image(concept, style, kind, px).rotate(
        math.degrees(angle * _ANGLE_STEP), Image.Resampling.BILINEAR, expand=True
    )
    shadow = Image.new("RGBA", sprite.size, (40, 36, 30, 255))
    shadow.putalpha(sprite.getchannel("A").point(lambda a: a // 3))
    return sprite, shadow


@lru_cache(maxsize=4096)
def gripper_sprite(
    px_per_m: int, aperture: int, height: int, yaw: int, grasping: bool
) -> tuple[Image.Image, Image.Image]:
    """The gripper (two fingers on a bar) and its shadow, both RGBA.

    ``aperture`` is 0 to 4, ``height`` 0 to 12 cm, ``yaw`` in steps of 3 degrees.
    """
    scale = px_per_m * (1 + 0.035 * height)
    half = max(4, round(0.075 * scale))
    image = Image.new("RGBA", (2 * half + 1, 2 * half + 1))
    draw = ImageDraw.Draw(image)
    reach = (0.014 + 0.036 * aperture / 4) * scale
    finger, depth, bar = 0.013 * scale, 0.026 * scale, 0.008 * scale
    tint = 40 + 14 * height
    colour = (tint, 40, 200 - 6 * height, 255)
    draw.rectangle((half - reach, half - bar, half + reach, half + bar), fill=(60, 60, 66, 255))
    for side in (-1, 1):
        x = half + side * reach
        draw.rectangle((x - finger, half - depth, x + finger, half + depth), fill=colour)
    if grasping:
        draw.rectangle((half - bar, half - bar, half + bar, half + bar), fill=(255, 190, 0, 255))
    image = image.rotate(yaw * math.degrees(_ANGLE_STEP), Image.Resampling.BILINEAR)
    shadow = Image.new("RGBA", image.size, (30, 30, 36, 255))
    shadow.putalpha(image.getchannel("A").point(lambda a: a * 2 // 5))
    return image, shadow


def _paste(canvas: Image.Image, sprite: Image.Image, cx: float, cy: float) -> None:
    canvas.paste(sprite, (round(cx - sprite.width / 2), round(cy - sprite.height / 2)), sprite)


def render_top(
    items: list[Item], gripper: Gripper, appearance: Appearance, size: int
) -> np.ndarray:
    """The image of the top camera: (size, size, 3) uint8, x to the right, y upwards."""
    canvas = _draw_scene(items, gripper, appearance, size * _SUPERSAMPLE)
    return np.asarray(_apply_camera(canvas, appearance).reduce(_SUPERSAMPLE))


def _apply_camera(canvas: Image.Image, appearance: Appearance) -> Image.Image:
    """Apply the camera's shift and zoom and the light."""
    if appearance.zoom != 1.0 or appearance.shift != (0.0, 0.0):
        px = canvas.width
        step, centre = 1 / appearance.zoom, px / 2
        dx, dy = appearance.shift[0] * px / TOP_VIEW, -appearance.shift[1] * px / TOP_VIEW
        matrix = (step, 0.0, centre - step * centre + dx, 0.0, step, centre - step * centre + dy)
        canvas = canvas.transform(
            (px, px),
            Image.Transform.AFFINE,
            matrix,
            Image.Resampling.BILINEAR,
            fillcolor=_OUTSIDE,
        )
    if appearance.light == 1.0:
        return canvas
    return canvas.point(lambda v: min(255, round(v * appearance.light)))


def _draw_scene(items: list[Item], g: Gripper, appearance: Appearance, px: int) -> Image.Image:
    """The whole table from above: (px, px) RGB."""
    per_m = px / TOP_VIEW
    canvas = background(appearance, px).copy()

    def at(x: float, y: float) -> tuple[float, float]:
        return (x + TOP_VIEW / 2) * per_m, (TOP_VIEW / 2 - y) * per_m

    if g.base is not None:
        cx, cy, reach, arm = *at(g.base.x, g.base.y), ARM_REACH * per_m, 0.03 * per_m
        draw, width = ImageDraw.Draw(canvas), max(1, px // 64)
        box = (cx - reach, cy - reach, cx + reach, cy + reach)
        draw.rectangle(box, outline=_BASE, width=width)
        draw.line((cx - arm, cy, cx + arm, cy), fill=_BASE, width=width)
        draw.line((cx, cy - arm, cx, cy + arm), fill=_BASE, width=width)
    order = sorted(range(len(items)), key=lambda n: (items[n].kind == "tile", n == g.grasped, n))
    for n in order:
        item = items[n]
        side = TILE_SIDE * (1 + 0.9 * item.z) if item.kind == "tile" else CARD_SIDE
        sprite, shadow = item_sprite(
            item.concept, item.style, item.kind, round(side * per_m), round(item.yaw / _ANGLE_STEP)
        )
        cx, cy = at(item.x, item.y)
        if item.kind == "tile":
            drop = (0.006 + 0.3 * item.z) * per_m
            _paste(canvas, shadow, cx + drop, cy + drop)
        _paste(canvas, sprite, cx, cy)
    draw_gripper(canvas, g)
    return canvas


def draw_gripper(canvas: Image.Image, g: Gripper) -> None:
    """Draw the gripper and its shadow on a square image of the whole table."""
    per_m = canvas.width / TOP_VIEW
    height = min(12, max(0, round(g.z * 100)))
    sprite, shadow = gripper_sprite(
        round(per_m),
        round(g.aperture * 4),
        height,
        round(g.yaw / _ANGLE_STEP),
        g.grasped is not None,
    )
    cx, cy = (g.x + TOP_VIEW / 2) * per_m, (TOP_VIEW / 2 - g.y) * per_m
    drop = 0.35 * g.z * per_m
    if height:
        _paste(canvas, shadow, cx + drop, cy + drop)
    _paste(canvas, sprite, cx, cy)


def render_wrist(
    items: list[Item], gripper: Gripper, appearance: Appearance, size: int
) -> np.ndarray:
    """The image of the wrist camera: (size, size, 3) uint8.

    It turns with the gripper and shows a larger area from a larger height.
    """
    view = WRIST_VIEW * (0.6 + 0.4 * gripper.z / HOVER_Z)
    px = round(size * _SUPERSAMPLE * TOP_VIEW / WRIST_VIEW)
    canvas = _draw_scene(items, gripper, appearance, px)
    per_m = px / TOP_VIEW
    cx, cy = (gripper.x + TOP_VIEW / 2) * per_m, (TOP_VIEW / 2 - gripper.y) * per_m
    turned = canvas.rotate(
        -math.degrees(gripper.yaw),
        Image.Resampling.BILINEAR,
        center=(cx, cy),
        fillcolor=_OUTSIDE,
    )
    half = round(view * per_m / 2)
    left, top = round(cx) - half, round(cy) - half
    frame = Image.new("RGB", (2 * half, 2 * half), _OUTSIDE)
    frame.paste(turned, (-left, -top))
    return np.asarray(frame.resize((size, size), Image.Resampling.BOX))
