"""References to an image by a property instead of its name, e.g. "the fruit".

Web questions teach them; the emergent suite uses them in instructions (RT-2, arXiv 2307.15818,
section 4.2). Robot data uses names only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.benchmarks.tabletop.web.concepts import (
    LANGUAGES,
    NUMBERS,
    Concept,
    category_of,
    concepts,
    splits,
    translated_name,
)
from vla.benchmarks.tabletop.web.countries import country_of


@dataclass(frozen=True)
class Reference:
    """A phrase that fits exactly one image of a scene."""

    # The knowledge that it needs: name, category, odd (one out), language, sum, product, extreme
    # (smallest or largest number), capital, continent, same_colour or other_colour.
    type: str
    text: str  # follows the word "the"


def references(keys: Sequence[str], target: int) -> list[Reference]:
    """All references that fit image ``target`` and no other one of ``keys``, in a fixed order."""
    table = concepts()
    scene = [table[k] for k in keys]
    own, others = scene[target], [c for n, c in enumerate(scene) if n != target]
    category, other_categories = category_of(own), {category_of(c) for c in others}
    found = [Reference("name", own.name)]
    if category and category not in other_categories:
        found.append(Reference("category", category))
    if (
        len(others) >= 2
        and len(other_categories) == 1
        and "" not in other_categories
        and category not in other_categories
    ):
        (word,) = other_categories
        found.append(Reference("odd", f"one that is not a {word}"))
    if own.category:
        for code, language in LANGUAGES.items():
            word = translated_name(own, code)
            if word and word != own.name and all(translated_name(c, code) != word for c in others):
                found.append(Reference("language", f"{word} in {language.lower()}"))
    return [
        *found,
        *_number_references(own, others),
        *_flag_references(own, others),
        *_colour_references(own, others),
    ]


def _digit(concept: Concept) -> int | None:
    return NUMBERS.index(concept.name) if concept.key in splits()["digits"] else None


def _number_references(own: Concept, others: list[Concept]) -> list[Reference]:
    value = _digit(own)
    if value is None:
        return []
    found = [
        Reference("sum", f"sum of {NUMBERS[a]} plus {NUMBERS[value - a]}") for a in range(1, value)
    ]
    found += [
        Reference("product", f"answer of {NUMBERS[a]} times {NUMBERS[value // a]}")
        for a in range(2, value)
        if value % a == 0
    ]
    rest = [d for d in map(_digit, others) if d is not None]
    if rest and value < min(rest):
        found.append(Reference("extreme", "smallest number"))
    if rest and value > max(rest):
        found.append(Reference("extreme", "largest number"))
    return found


def _flag_references(own: Concept, others: list[Concept]) -> list[Reference]:
    country = country_of(own)
    if country is None:
        return []
    found = []
    if country.capital:
        capital = country.capital.lower()
        found.append(Reference("capital", f"flag of the country with the capital {capital}"))
    other_continents = [c.continent for c in map(country_of, others) if c]
    if country.continent and country.continent not in other_continents:
        found.append(Reference("continent", f"flag of a country in {country.continent.lower()}"))
    return found


def _colour_and_form(concept: Concept) -> tuple[str, str] | None:
    """Colour and form of a shape, e.g. ("red", "circle"); None for any other concept."""
    if concept.key not in splits()["shapes"]:
        return None
    colour, form = concept.name.split()
    return colour, form


def _colour_references(own: Concept, others: list[Concept]) -> list[Reference]:
    mine, rest = _colour_and_form(own), [s for s in map(_colour_and_form, others) if s]
    if mine is None:
        return []
    forms, colours = Counter(f for _, f in (mine, *rest)), {c for c, _ in rest}
    found = []
    if sum(c == mine[0] for c, _ in rest) == 1:
        found = [
            Reference("same_colour", f"shape of the same colour as the {form}")
            for colour, form in rest
            if colour == mine[0] and forms[form] == 1
        ]
    if len(rest) >= 2 and len(colours) == 1 and mine[0] not in colours:
        found.append(Reference("other_colour", "shape of another colour"))
    return found


def sample_colour_scene(rng: np.random.Generator) -> list[str]:
    """Keys of three shapes; the colour of the first identifies it.

    Either only the second has the same colour, or only the first has another colour.
    """
    table = {_colour_and_form(concepts()[k]): k for k in splits()["shapes"]}
    colours = sorted({c for c, _ in filter(None, table)})
    one, other = (colours[k] for k in rng.choice(len(colours), 2, replace=False))
    form, second = (("circle", "square"), ("square", "circle"))[int(rng.integers(2))]
    if rng.random() < 0.5:
        return [table[one, form], table[one, second], table[other, form]]
    return [table[one, form], table[other, form], table[other, second]]
