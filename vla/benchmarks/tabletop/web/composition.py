"""Composes the images of the web data: objects on a plain background or tiles on the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vla.benchmarks.tabletop.appearance import background, sample_appearance
from vla.benchmarks.tabletop.render import TOP_VIEW, draw_gripper, item_sprite
from vla.benchmarks.tabletop.web.art import load_art
from vla.benchmarks.tabletop.web.concepts import Concept, category_of, concepts
from vla.benchmarks.tabletop.web.config import WebConfig
from vla.benchmarks.tabletop.web.references import sample_colour_scene
from vla.benchmarks.tabletop.world import HOVER_Z, Gripper

_SUPERSAMPLE = 2  # images are drawn larger by this factor and then reduced
_MIN_DISTANCE = 0.24  # share of the image between the centres of two objects, in x or in y
_PLACEMENT_TRIES = 40  # an object that fits nowhere is left out
_GRIPPER_SHARE = 0.6  # share of the table images that show the gripper
_LIGHT = 222  # smallest channel value of a light background
_SHEET = (255, 255, 252)  # colour of the sheet under half of the loose objects


@dataclass(frozen=True)
class PlacedObject:
    """One object in an image; x and y are 0 to 1 from the left and the bottom."""

    concept: Concept
    x: float
    y: float


@dataclass(frozen=True)
class Composition:
    """One composed image."""

    image: np.ndarray  # (S, S, 3) uint8
    objects: list[PlacedObject]
    gripper: tuple[float, float] | None  # its location as in ``PlacedObject``; None: not shown


def compose_image(config: WebConfig, rng: np.random.Generator) -> Composition:
    """A random image of objects with different concepts; it may be empty."""
    keys = _sample_concepts(config, rng)
    px = config.size * _SUPERSAMPLE
    on_table = rng.random() < config.on_table_share
    low = 0 if config.any_background else _LIGHT
    colour = tuple(int(v) for v in rng.integers(low, 256, 3))
    if on_table:
        canvas = background(sample_appearance(rng), px).copy()
    else:
        canvas = Image.new("RGB", (px, px), colour)
    objects: list[PlacedObject] = []
    for key in keys:
        side = rng.uniform(0.17, 0.30 if len(keys) > 1 else 0.45)
        position = _sample_position(side, objects, rng)
        if position is None:
            continue
        x, y = position
        style = config.styles[int(rng.integers(len(config.styles)))]
        draw = _draw_tile if on_table else _draw_loose
        draw(canvas, str(key), style, x * px, (1 - y) * px, max(4, round(side * px)), rng)
        objects.append(PlacedObject(concepts()[str(key)], float(x), float(y)))
    gripper = None
    if on_table and rng.random() < _GRIPPER_SHARE:
        gx, gy = rng.uniform(-0.25, 0.25, 2)  # m
        z, aperture = float(rng.uniform(0, HOVER_Z)), float(rng.integers(2))
        draw_gripper(canvas, Gripper(float(gx), float(gy), z, aperture=aperture))
        gripper = (gx / TOP_VIEW + 0.5, gy / TOP_VIEW + 0.5)
    return Composition(np.asarray(canvas.reduce(_SUPERSAMPLE)), objects, gripper)


def _sample_concepts(config: WebConfig, rng: np.random.Generator) -> np.ndarray:
    """The keys of the objects of one image."""
    low, high = config.objects
    single = rng.random() < config.single_object_share
    n = 1 if single else int(rng.integers(low, high + 1))
    keys = rng.choice(config.concept_keys(), n, replace=False)
    if not config.find_questions or n < 3:
        return keys
    if rng.random() < config.odd_one_out_share:
        keys = _sample_odd_one_out(config, n, rng)
    if "shapes" in config.groups and rng.random() < config.shape_colour_share:
        keys = np.array(sample_colour_scene(rng))
    return keys


def _sample_odd_one_out(config: WebConfig, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to ``n`` keys; all but the last have the same category."""
    by_category: dict[str, list[str]] = {}
    for key in config.concept_keys():
        by_category.setdefault(category_of(concepts()[key]), []).append(key)
    categories = sorted(c for c, members in by_category.items() if c and len(members) >= 2)
    if not categories or len(by_category) < 2:
        return rng.choice(config.concept_keys(), n, replace=False)
    members = by_category[categories[int(rng.integers(len(categories)))]]
    others = [k for k in config.concept_keys() if k not in members]
    same = rng.choice(members, min(n - 1, len(members)), replace=False)
    return np.append(same, rng.choice(others))


def _sample_position(
    side: float, objects: list[PlacedObject], rng: np.random.Generator
) -> np.ndarray | None:
    """A free position (2,) between 0 and 1, or None."""
    for _ in range(_PLACEMENT_TRIES):
        x, y = position = rng.uniform(side / 2, 1 - side / 2, 2)
        if all(max(abs(x - o.x), abs(y - o.y)) > _MIN_DISTANCE for o in objects):
            return position
    return None


def _draw_tile(
    canvas: Image.Image,
    key: str,
    style: str,
    x: float,
    y: float,
    side: int,
    rng: np.random.Generator,
) -> None:
    """Draw a tile and its shadow, at most 18 degrees rotated; x, y and side are in px."""
    tile, shadow = item_sprite(key, style, "tile", side, int(rng.integers(-6, 7)))
    for sprite, offset in ((shadow, 1), (tile, 0)):
        corner = round(x - sprite.width / 2) + offset, round(y - sprite.height / 2) + offset
        canvas.paste(sprite, corner, sprite)


def _draw_loose(
    canvas: Image.Image,
    key: str,
    style: str,
    x: float,
    y: float,
    side: int,
    rng: np.random.Generator,
) -> None:
    """Draw an object, at most 20 degrees rotated, half of the time on a sheet."""
    resampling = Image.Resampling.BOX if side < 72 else Image.Resampling.BICUBIC
    art = Image.fromarray(load_art(key, style)).resize((side, side), resampling)
    art = art.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BILINEAR)
    left, top = round(x - side / 2), round(y - side / 2)
    if rng.random() < 0.5:
        canvas.paste(_SHEET, (left - 2, top - 2, left + side + 2, top + side + 2))
    canvas.paste(art, (left, top), art)
