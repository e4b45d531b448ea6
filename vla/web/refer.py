"""Which picture is meant, said otherwise than by its name: what web questions teach, and what the emergent suites ask of a robot that has only ever
been given names (RT-2, arXiv 2307.15818, section 4.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.web.knowledge import NUMBERS, Concept, concepts, country_of, splits, translated_name

LANGUAGES = {"es": "Spanish", "de": "German", "fr": "French"}
TESTS = ("name", "category", "odd", "language", "sum", "product", "extreme", "capital", "continent", "same_colour", "other_colour")
GROUP_NAMES = {"digits": "number", "icons": "symbol", "flags": "flag", "people": "person", "shapes": "shape"}


@dataclass(frozen=True)
class Reference:
    """text goes behind "the"; test says what must be known to understand it."""

    test: str
    text: str


def kind_of(concept: Concept) -> str:
    """The word for what sort of thing it is; empty where there is none."""
    if concept.category:
        return concept.category
    return next((word for group, word in GROUP_NAMES.items() if concept.key in splits()[group]), "")


def _digit(concept: Concept) -> int | None:
    return NUMBERS.index(concept.name) if concept.key in splits()["digits"] else None


def references(keys: Sequence[str], target: int) -> list[Reference]:
    """Everything that can be said of picture ``target`` and of no other one of ``keys``, in a fixed order."""
    table = concepts()
    shown = [table[k] for k in keys]
    own, others = shown[target], [c for n, c in enumerate(shown) if n != target]
    found = [Reference("name", own.name)]
    kinds = {kind_of(c) for c in others}
    if kind_of(own) and kind_of(own) not in kinds:
        found.append(Reference("category", kind_of(own)))
    if len(others) >= 2 and len(kinds) == 1 and "" not in kinds and kind_of(own) not in kinds:
        (word,) = kinds
        found.append(Reference("odd", f"one that is not a {word}"))
    if own.category:
        for code, language in LANGUAGES.items():
            word = translated_name(own, code)
            if word and word != own.name and all(translated_name(c, code) != word for c in others):
                found.append(Reference("language", f"{word} in {language.lower()}"))
    found += _of_numbers(own, others) + _of_flags(own, others) + _of_colours(own, others)
    return found


def _of_numbers(own: Concept, others: list[Concept]) -> list[Reference]:
    value = _digit(own)
    if value is None:
        return []
    found = [Reference("sum", f"sum of {NUMBERS[a]} plus {NUMBERS[value - a]}") for a in range(1, value)]
    found += [
        Reference("product", f"answer of {NUMBERS[a]} times {NUMBERS[value // a]}") for a in range(2, value) if value % a == 0
    ]
    rest = [d for d in map(_digit, others) if d is not None]
    if rest and value < min(rest):
        found.append(Reference("extreme", "smallest number"))
    if rest and value > max(rest):
        found.append(Reference("extreme", "largest number"))
    return found


def _of_flags(own: Concept, others: list[Concept]) -> list[Reference]:
    country = country_of(own)
    if country is None:
        return []
    found = []
    if country.capital:
        found.append(Reference("capital", f"flag of the country with the capital {country.capital.lower()}"))
    elsewhere = [c.continent for c in map(country_of, others) if c]
    if country.continent and country.continent not in elsewhere:
        found.append(Reference("continent", f"flag of a country in {country.continent.lower()}"))
    return found


def _colour_and_form(concept: Concept) -> tuple[str, str] | None:
    if concept.key not in splits()["shapes"]:
        return None
    colour, form = concept.name.split()
    return colour, form


def _of_colours(own: Concept, others: list[Concept]) -> list[Reference]:
    mine, rest = _colour_and_form(own), [s for s in map(_colour_and_form, others) if s]
    if mine is None:
        return []
    forms, colours = Counter(f for _, f in (mine, *rest)), {c for c, _ in rest}
    found = [
        Reference("same_colour", f"shape of the same colour as the {form}")
        for colour, form in rest
        if colour == mine[0] and forms[form] == 1
    ]
    if sum(c == mine[0] for c, _ in rest) > 1:
        found = []
    if len(rest) >= 2 and len(colours) == 1 and mine[0] not in colours:
        found.append(Reference("other_colour", "shape of another colour"))
    return found


def colour_scene(rng: np.random.Generator) -> list[str]:
    """Keys of three shapes, the first told by its colour: it is the only one like the second's, or the only one unlike the others'."""
    table = {_colour_and_form(concepts()[k]): k for k in splits()["shapes"]}
    colours = sorted({c for c, _ in filter(None, table)})
    one, other = (colours[k] for k in rng.choice(len(colours), 2, replace=False))
    form, second = (("circle", "square"), ("square", "circle"))[int(rng.integers(2))]
    if rng.random() < 0.5:
        return [table[one, form], table[one, second], table[other, form]]
    return [table[one, form], table[other, form], table[other, second]]
