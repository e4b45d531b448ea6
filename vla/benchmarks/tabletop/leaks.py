"""Checks that packed tabletop episodes have nothing that only web data may teach.

``python -m vla.benchmarks.tabletop.leaks DIR`` prints one line for each leak and exits with
status 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from vla.benchmarks.tabletop.web.concepts import (
    GROUP_CATEGORY,
    LANGUAGES,
    NUMBERS,
    WEB_GROUPS,
    category_of,
    concepts,
    splits,
    translated_name,
)
from vla.data.manifest import Manifest, load_manifest
from vla.errors import DataError

_ALLOWED_WORDS = {"the", "of", "with", "a", "in", "is", "not", "one", "to", "up", "on"}
_REFERENCE_WORDS = (
    "sum",
    "plus",
    "times",
    "answer",
    "smallest",
    "largest",
    "number",
    "capital",
    "country",
    "colour",
    "same",
)
_WORD = re.compile(r"[^\W\d_]+")


def forbidden_words() -> dict[str, str]:
    """Words that no robot instruction may have -> the reason."""
    table, groups = concepts(), splits()
    reasons = dict.fromkeys(_REFERENCE_WORDS, "a word of sums and comparisons")
    reasons |= dict.fromkeys(NUMBERS[2:], "a number")
    reasons |= dict.fromkeys((n.lower() for n in LANGUAGES.values()), "a language")
    reasons |= dict.fromkeys(GROUP_CATEGORY.values(), "a category")
    for key in [k for group in WEB_GROUPS for k in groups[group]]:
        name = table[key].name
        reasons |= dict.fromkeys(_WORD.findall(name), f"in the name of {name!r}")
    for key in groups["robot"]:
        concept = table[key]
        reasons |= dict.fromkeys(_WORD.findall(category_of(concept)), "a category")
        for code, language in LANGUAGES.items():
            words = set(_WORD.findall(translated_name(concept, code)))
            words -= set(_WORD.findall(concept.name))  # some words are equal in both languages
            reasons |= dict.fromkeys(words, f"{concept.name!r} in {language}")
    return {w: why for w, why in reasons.items() if w not in _ALLOWED_WORDS and len(w) > 2}


def find_leaks(manifest: Manifest) -> list[str]:
    """One line for each word and each art of robot data that only web data may have.

    Raises:
        DataError: the manifest does not list the art of its episodes.
    """
    if not manifest.tags:
        raise DataError(
            "leak check: the manifest does not list the art of its episodes; "
            "give packed tabletop episodes"
        )
    reasons, lines = forbidden_words(), []
    used = {w for text in manifest.words for w in _WORD.findall(text.lower())}
    lines += [f"word {w!r}: {reasons[w]}" for w in sorted(used & set(reasons))]
    held_out, allowed = set(splits()["held_out_art"]), set(splits()["robot"])
    for art in manifest.tags:
        key = art.rsplit(":", 1)[0]
        name = concepts()[key].name
        if key not in allowed:
            lines.append(f"image of {name!r}: not a robot concept")
        elif art in held_out:
            lines.append(f"image {art}: held-out art of {name!r}")
    return lines


def main(directory: Path) -> int:
    """Print the leaks of a packed data set; returns the exit status."""
    found = find_leaks(load_manifest(directory))
    for line in found:
        print(line, file=sys.stderr)
    if not found:
        print(f"{directory}: no word or image that only web data may have")
    return int(bool(found))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vla.benchmarks.tabletop.leaks DIR")
    sys.exit(main(Path(sys.argv[1])))
