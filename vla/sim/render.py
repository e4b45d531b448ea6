"""Draws the tabletop with Pillow: no GL, integer blending, the same bytes on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vla.sim.world import CARD_SIDE, HALF_TABLE, HOVER_Z, TILE_SIDE, Gripper, Item
from vla.web.pictures import picture

VIEW = 2 * (HALF_TABLE + 0.01)  # m, side of the square the top camera sees
WRIST_VIEW = 0.22  # m
_SUPERSAMPLE = 2
_ANGLE_STEP = math.radians(3)

TABLES = {  # name -> base colour; those behind the first seven are kept for generalisation suites
    "white": (244, 243, 240), "cream": (247, 240, 226), "mint": (232, 243, 236), "sky": (231, 239, 247),
    "rose": (247, 234, 235), "grey": (229, 230, 232), "lilac": (239, 234, 246),
    "walnut": (150, 111, 77), "slate": (96, 105, 118), "felt": (66, 120, 84),
    "peach": (250, 226, 208), "lemon": (247, 244, 206), "ice": (214, 240, 244),
}  # fmt: skip
TRAIN_TABLES = tuple(TABLES)[:7]
DARK_TABLES, LIGHT_TABLES = tuple(TABLES)[7:10], tuple(TABLES)[10:]  # held out: hard and easy
TEXTURES = ("plain", "grain", "dots", "checks")


@dataclass(frozen=True)
class Look:
    """How a scene looks: a name of ``TABLES``, one of ``TEXTURES``, and the texture's seed; light: brightness; zoom and shift (m, to the right and up):
    how the top camera is off its place."""

    table: str = "white"
    texture: str = "plain"
    seed: int = 0
    light: float = 1.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)


def sample_look(rng: np.random.Generator, tables: tuple[str, ...] = TRAIN_TABLES) -> Look:
    """A look of the training set, or on one of other ``tables``."""
    table = tables[int(rng.integers(len(tables)))]
    return Look(table, TEXTURES[int(rng.integers(len(TEXTURES)))], int(rng.integers(64)))


@lru_cache(maxsize=256)
def background(look: Look, size: int) -> Image.Image:
    """The empty table (size, size) RGB."""
    rng = np.random.default_rng(look.seed)
    base = np.broadcast_to(np.array(TABLES[look.table], np.int16), (size, size, 3)).copy()
    if look.texture == "grain":
        rows = rng.integers(-7, 8, 24).astype(np.int16)
        base += np.repeat(rows, math.ceil(size / 24))[:size, None, None]
    elif look.texture == "dots":
        step = max(6, size // 16)
        base[step // 2 :: step, step // 2 :: step] -= 30
    elif look.texture == "checks":
        cells = (np.arange(size) * 8 // size)[:, None] + (np.arange(size) * 8 // size)[None, :]
        base += np.where(cells % 2 == 0, 5, -5).astype(np.int16)[:, :, None]
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


@lru_cache(maxsize=1024)
def _plate(concept: str, style: str, kind: str, px: int) -> Image.Image:
    """A tile or card, unrotated, (px, px) RGBA."""
    big = px * 2
    image = Image.new("RGBA", (big, big))
    draw = ImageDraw.Draw(image)
    if kind == "tile":
        draw.rounded_rectangle(
            (0, 0, big - 1, big - 1), big // 6, fill=(255, 255, 252, 255), outline=(120, 112, 100, 255), width=max(1, big // 20)
        )
        share = 0.9
    else:
        draw.rectangle((0, 0, big - 1, big - 1), fill=(214, 226, 255, 255), outline=(70, 110, 220, 255), width=max(2, big // 12))
        share = 0.8
    side = round(big * share)
    art = Image.fromarray(picture(concept, style)).resize(
        (side, side), Image.Resampling.BOX if side < 72 else Image.Resampling.BICUBIC
    )
    image.alpha_composite(art, ((big - side) // 2, (big - side) // 2))
    return image.reduce(2)


@lru_cache(maxsize=8192)
def tile_sprite(concept: str, style: str, kind: str, px: int, angle: int) -> tuple[Image.Image, Image.Image]:
    """Rotated plate and its flat shadow, both RGBA; ``angle`` in steps of 3 degrees."""
    plate = _plate(concept, style, kind, px).rotate(math.degrees(angle * _ANGLE_STEP), Image.Resampling.BILINEAR, expand=True)
    shadow = Image.new("RGBA", plate.size, (40, 36, 30, 255))
    shadow.putalpha(plate.getchannel("A").point(lambda a: a // 3))
    return plate, shadow


@lru_cache(maxsize=4096)
def gripper_sprite(px_per_m: int, aperture: int, height: int, yaw: int, holding: bool) -> tuple[Image.Image, Image.Image]:
    """Two fingers on a bar and their shadow, RGBA. ``aperture`` 0..4, ``height`` 0..12 (cm), ``yaw`` in 3-degree steps."""
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
    if holding:
        draw.rectangle((half - bar, half - bar, half + bar, half + bar), fill=(255, 190, 0, 255))
    image = image.rotate(yaw * math.degrees(_ANGLE_STEP), Image.Resampling.BILINEAR)
    shadow = Image.new("RGBA", image.size, (30, 30, 36, 255))
    shadow.putalpha(image.getchannel("A").point(lambda a: a * 2 // 5))
    return image, shadow


def _paste(canvas: Image.Image, sprite: Image.Image, cx: float, cy: float) -> None:
    canvas.paste(sprite, (round(cx - sprite.width / 2), round(cy - sprite.height / 2)), sprite)


def render_top(items: list[Item], gripper: Gripper, look: Look, size: int) -> np.ndarray:
    """What the top camera sees: (size, size, 3) uint8, x to the right, y upwards."""
    return np.asarray(_through_camera(_draw(items, gripper, look, size * _SUPERSAMPLE), look).reduce(_SUPERSAMPLE))


def _through_camera(canvas: Image.Image, look: Look) -> Image.Image:
    """Moved, closer or further, darker or brighter."""
    if look.zoom != 1.0 or look.shift != (0.0, 0.0):
        px = canvas.width
        step, centre = 1 / look.zoom, px / 2
        dx, dy = look.shift[0] * px / VIEW, -look.shift[1] * px / VIEW
        place = (step, 0.0, centre - step * centre + dx, 0.0, step, centre - step * centre + dy)
        canvas = canvas.transform((px, px), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR, fillcolor=(70, 70, 74))
    return canvas if look.light == 1.0 else canvas.point(lambda v: min(255, round(v * look.light)))


def _draw(items: list[Item], g: Gripper, look: Look, px: int) -> Image.Image:
    per_m = px / VIEW
    canvas = background(look, px).copy()

    def at(x: float, y: float) -> tuple[float, float]:
        return (x + VIEW / 2) * per_m, (VIEW / 2 - y) * per_m

    order = sorted(range(len(items)), key=lambda n: (items[n].kind == "tile", n == g.held, n))
    for n in order:
        item = items[n]
        side = TILE_SIDE * (1 + 0.9 * item.z) if item.kind == "tile" else CARD_SIDE
        plate, shadow = tile_sprite(item.concept, item.style, item.kind, round(side * per_m), round(item.yaw / _ANGLE_STEP))
        cx, cy = at(item.x, item.y)
        if item.kind == "tile":
            drop = (0.006 + 0.3 * item.z) * per_m
            _paste(canvas, shadow, cx + drop, cy + drop)
        _paste(canvas, plate, cx, cy)
    draw_gripper(canvas, g)
    return canvas


def draw_gripper(canvas: Image.Image, g: Gripper) -> None:
    """The gripper and its shadow on a square picture of the whole table."""
    per_m = canvas.width / VIEW
    height = min(12, max(0, round(g.z * 100)))
    sprite, shadow = gripper_sprite(round(per_m), round(g.aperture * 4), height, round(g.yaw / _ANGLE_STEP), g.held is not None)
    cx, cy = (g.x + VIEW / 2) * per_m, (VIEW / 2 - g.y) * per_m
    drop = 0.35 * g.z * per_m
    if height:
        _paste(canvas, shadow, cx + drop, cy + drop)
    _paste(canvas, sprite, cx, cy)


def render_wrist(items: list[Item], gripper: Gripper, look: Look, size: int) -> np.ndarray:
    """What a camera on the gripper sees: (size, size, 3) uint8, turned with the gripper, wider when higher."""
    view = WRIST_VIEW * (0.6 + 0.4 * gripper.z / HOVER_Z)
    px = round(size * _SUPERSAMPLE * VIEW / WRIST_VIEW)
    canvas = _draw(items, gripper, look, px)
    per_m = px / VIEW
    cx, cy = (gripper.x + VIEW / 2) * per_m, (VIEW / 2 - gripper.y) * per_m
    turned = canvas.rotate(-math.degrees(gripper.yaw), Image.Resampling.BILINEAR, center=(cx, cy), fillcolor=(70, 70, 74))
    half = round(view * per_m / 2)
    left, top = round(cx) - half, round(cy) - half
    frame = Image.new("RGB", (2 * half, 2 * half), (70, 70, 74))
    frame.paste(turned, (-left, -top))
    return np.asarray(frame.resize((size, size), Image.Resampling.BOX))
