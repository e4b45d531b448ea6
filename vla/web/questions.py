"""Web samples: composed pictures with questions about them, and facts in words only."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vla.data.pictures import encode_image
from vla.schema import ACTION_QUESTION, QA, WebSample
from vla.sim.render import VIEW, background, draw_gripper, sample_look, tile_sprite
from vla.sim.world import HOVER_Z, Gripper
from vla.web.knowledge import Concept, concepts, countries, keywords, robot_concepts, splits, translated_name
from vla.web.pictures import STYLES, picture
from vla.web.refer import LANGUAGES, colour_scene, kind_of, references

WEB_GROUPS = ("unseen", "digits", "icons", "flags", "people", "shapes")
FIND = "find the {x}."
PHRASES = (  # other words for the same question; none is a robot's instruction
    FIND, "locate the {x}.", "point at the {x}.", "show me the {x}.", "look at the {x}.", "look for the {x}.", "touch the {x}.", "choose the {x}.",
    "take the {x}.", "go to the {x}.", "bring something to the {x}.", "put a coin beside the {x}.", "which one is the {x}?", "i would like the {x}.",
    "give me the {x}, please.", "what should one look at to see the {x}?", "what should a person do to get the {x}?", "what would you take to have the {x}?",
    "where would a child go to touch the {x}?", "carry the cup over to the {x}.", "not the others but the {x}.",
)  # fmt: skip
_WISHES = ("i would like the {x}.", "not the others but the {x}.")  # no orders, as nothing with a question mark is one
BINS = 256  # locations are written in the action vocabulary: 0..255 from left to right and from bottom to top
TESTS = ("name", "where", "what_at", "kind", "count", "list", "hand", "fact", "find")


@dataclass(frozen=True)
class WebConfig:
    """pictures: inclusive range per scene; singles: share of one-picture scenes; concepts: how many robot concepts are included;
    web_only: whether the objects no robot ever sees are included; groups: further groups of ``splits.json`` (``unseen``, ``digits``, ...); facts: questions
    in words only a scene; find: questions a scene that say otherwise than by name what is to be found ("find the fruit."), answered with name and place, phrases: in many
    words; robot_words: share of them asked as a robot is ("what action should the robot take to find the fruit?"), which is answered alike;
    by_knowledge: what must be known is chosen first and then a picture (else a picture first); alike, coloured: shares of scenes of three and more pictures, where things are to be found, in which all
    but one are of a kind, or that are about shapes' colours (where there are shapes); on_table: share of scenes whose pictures are tiles on a table, mostly with the robot's hand above it
    (RT-2 for Language-Table was co-trained to say where the arm is, too), instead of loose pictures; size: px."""

    pictures: tuple[int, int] = (1, 4)
    singles: float = 0.4
    concepts: int = 80
    web_only: bool = True
    groups: tuple[str, ...] = ()
    facts: int = 1
    find: int = 0
    phrases: bool = False
    robot_words: float = 0.0
    by_knowledge: bool = False
    alike: float = 0.25
    coloured: float = 0.15
    any_background: bool = False
    on_table: float = 0.5
    size: int = 64
    styles: tuple[str, ...] = STYLES

    def __post_init__(self) -> None:
        unknown = [g for g in self.groups if g not in WEB_GROUPS]
        if unknown:
            raise ValueError(f"web.groups: unknown group {unknown[0]!r}; choose from {', '.join(WEB_GROUPS)}")

    def pool(self) -> list[str]:
        """Concept keys that may be shown."""
        more = [key for group in self.groups for key in splits()[group]]
        keys = [c.key for c in robot_concepts(self.concepts)] + (splits()["web_only"] if self.web_only else []) + more
        return list(dict.fromkeys(keys))


@dataclass(frozen=True)
class _Shown:
    concept: Concept
    x: float  # 0..1 from left
    y: float  # 0..1 from bottom


def _bin(value: float) -> int:
    return min(BINS - 1, max(0, math.floor(value * BINS)))


def _odd_one_out(config: WebConfig, n: int, rng: np.random.Generator) -> np.ndarray:
    """n concepts, all but one of a kind (as many as there are of it)."""
    by_kind: dict[str, list[str]] = {}
    for key in config.pool():
        by_kind.setdefault(kind_of(concepts()[key]), []).append(key)
    kinds = sorted(k for k, members in by_kind.items() if k and len(members) >= 2)
    if not kinds or len(by_kind) < 2:
        return rng.choice(config.pool(), n, replace=False)
    kind = kinds[int(rng.integers(len(kinds)))]
    others = [k for k in config.pool() if k not in by_kind[kind]]
    alike = rng.choice(by_kind[kind], min(n - 1, len(by_kind[kind])), replace=False)
    return np.append(alike, rng.choice(others))


def _compose(config: WebConfig, rng: np.random.Generator) -> tuple[np.ndarray, list[_Shown], QA | None]:
    """A scene of distinct concepts: (S, S, 3) uint8, where each lies, and where the robot's hand is if one is to be seen."""
    low, high = config.pictures
    n = 1 if rng.random() < config.singles else int(rng.integers(low, high + 1))
    keys = rng.choice(config.pool(), n, replace=False)
    if config.find and n >= 3 and rng.random() < config.alike:
        keys = _odd_one_out(config, n, rng)
    if config.find and "shapes" in config.groups and n >= 3 and rng.random() < config.coloured:
        keys = np.array(colour_scene(rng))
    px = config.size * 2
    on_table = rng.random() < config.on_table
    tint = tuple(int(v) for v in rng.integers(0 if config.any_background else 222, 256, 3))
    canvas = background(sample_look(rng), px).copy() if on_table else Image.new("RGB", (px, px), tint)
    shown: list[_Shown] = []
    for key in keys:
        side = rng.uniform(0.17, 0.30 if n > 1 else 0.45)
        for _ in range(40):
            x, y = rng.uniform(side / 2, 1 - side / 2, 2)
            if all(max(abs(x - s.x), abs(y - s.y)) > 0.24 for s in shown):
                break
        else:
            continue
        style = config.styles[int(rng.integers(len(config.styles)))]
        edge = max(4, round(side * px))
        if on_table:
            plate, shadow = tile_sprite(str(key), style, "tile", edge, int(rng.integers(-6, 7)))
            for sprite, shift in ((shadow, 1), (plate, 0)):
                canvas.paste(
                    sprite, (round(x * px - sprite.width / 2) + shift, round((1 - y) * px - sprite.height / 2) + shift), sprite
                )
            shown.append(_Shown(concepts()[str(key)], float(x), float(y)))
            continue
        art = Image.fromarray(picture(str(key), style))
        art = art.resize((edge, edge), Image.Resampling.BOX if edge < 72 else Image.Resampling.BICUBIC)
        art = art.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BILINEAR)
        corner = (round(x * px - edge / 2), round((1 - y) * px - edge / 2))
        if rng.random() < 0.5:
            canvas.paste((255, 255, 252), (corner[0] - 2, corner[1] - 2, corner[0] + edge + 2, corner[1] + edge + 2))
        canvas.paste(art, corner, art)
        shown.append(_Shown(concepts()[str(key)], float(x), float(y)))
    hand = None
    if on_table and rng.random() < 0.6:
        gx, gy = rng.uniform(-0.25, 0.25, 2)
        draw_gripper(canvas, Gripper(float(gx), float(gy), float(rng.uniform(0, HOVER_Z)), aperture=float(rng.integers(2))))
        hand = QA("where is the robot?", f"{_bin(gx / VIEW + 0.5)} {_bin(gy / VIEW + 0.5)}", "hand")
    return np.asarray(canvas.reduce(2)), shown, hand


def _ask(test: str, shown: list[_Shown], rng: np.random.Generator, one: _Shown | None = None) -> QA:
    """One question of the given test about a scene (about ``one`` of its pictures, or a random one)."""
    one = one or shown[int(rng.integers(len(shown)))]
    place = f"{_bin(one.x)} {_bin(one.y)}"
    if test == "where":
        return QA(f"where is the {one.concept.name}?", place, test)
    if test == "what_at":
        return QA(f"what is at {place}?", one.concept.name, test)
    if test == "kind":
        return QA(f"what kind of thing is at {place}?", kind_of(one.concept), test)
    if test == "count":
        kinds = Counter(kind_of(s.concept) for s in shown)
        if rng.random() < 0.5:
            return QA("how many pictures are there?", str(len(shown)), test)
        kind = sorted(kinds)[int(rng.integers(len(kinds)))]
        return QA(f"how many pictures show a kind of {kind}?", str(kinds[kind]), test)
    if test == "list":
        return QA("list everything from left to right.", ", ".join(s.concept.name for s in sorted(shown, key=lambda s: s.x)), test)
    return QA("what is this?", one.concept.name, "name")


def _find(config: WebConfig, shown: list[_Shown], rng: np.random.Generator) -> QA:
    """One picture to be found by something that fits it alone; kinds of knowledge come equally often, whatever their number of phrases."""
    keys = [s.concept.key for s in shown]
    by_test: dict[str, list[tuple[_Shown, str]]] = {}
    for which in range(len(shown)) if config.by_knowledge else [int(rng.integers(len(shown)))]:
        for reference in references(keys, which):
            by_test.setdefault(reference.test, []).append((shown[which], reference.text))
    test = sorted(by_test)[int(rng.integers(len(by_test)))]
    one, text = by_test[test][int(rng.integers(len(by_test[test])))]
    form = PHRASES[int(rng.integers(len(PHRASES)))] if config.phrases else FIND
    question = form.format(x=text)
    if config.robot_words and form.endswith(".") and form not in _WISHES and rng.random() < config.robot_words:
        question = ACTION_QUESTION.format(instruction=question[:-1])
    return QA(question, f"{one.concept.name} {_bin(one.x)} {_bin(one.y)}", f"find_{test}")


def _fact(config: WebConfig, rng: np.random.Generator) -> QA:
    """A question that needs no picture."""
    choice = rng.integers(4)
    if choice == 0:
        known = [c for c in countries() if c.capital and c.continent]
        country = known[int(rng.integers(len(known)))]
        if rng.random() < 0.5:
            return QA(f"what is the capital of {country.name}?", country.capital, "fact", False)
        return QA(f"on which continent is {country.name}?", country.continent, "fact", False)
    concept = concepts()[str(rng.choice(config.pool()))]
    if choice == 1:
        code = sorted(LANGUAGES)[int(rng.integers(len(LANGUAGES)))]
        return QA(f"what is {concept.name} in {LANGUAGES[code]}?", translated_name(concept, code), "fact", False)
    words = [w for w in keywords(concept) if w != concept.name]
    if choice == 2 and words:
        return QA(f"say a word that goes with {concept.name}.", words[int(rng.integers(len(words)))], "fact", False)
    return QA(f"what kind of thing is {concept.name}?", kind_of(concept), "fact", False)


def make_web_sample(config: WebConfig, seed: int, index: int) -> WebSample:
    """One sample, a function of its arguments alone. Every picture is asked for by name and by place: without that a model trained from
    nothing finds pictures but never learns what they are (measured: 12 % right among twelve after 32,000 images)."""
    rng = np.random.default_rng([seed, index])
    while True:
        image, shown, hand = _compose(config, rng)
        if shown:
            break
    qa = [_ask(test, shown, rng, one) for one in shown for test in ("where", "name" if len(shown) == 1 else "what_at")]
    qa += [hand] if hand else []
    others = ("kind", "count", "list", "what_at")
    qa += [_ask(others[int(rng.integers(len(others)))], shown, rng) for _ in range(2)]
    qa += [_fact(config, rng) for _ in range(config.facts)]
    qa += [_find(config, shown, rng) for _ in range(config.find)]
    unique = {q.question: q for q in qa}
    return WebSample(f"{index:07d}", encode_image(image), list(unique.values()))
