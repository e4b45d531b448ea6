"""Does robot data hold anything that only the web may teach? Read off the manifest: words of all instructions, pictures of all scenes."""

from __future__ import annotations

import re
from typing import Any

from vla.data.manifest import DataError
from vla.web.knowledge import NUMBERS, concepts, splits, translated_name
from vla.web.questions import WEB_GROUPS
from vla.web.refer import GROUP_NAMES, LANGUAGES, kind_of

_EVERYDAY = {"the", "of", "with", "a", "in", "is", "not", "one", "to", "up", "on"}  # words of names that say nothing of themselves
_WORD = re.compile(r"[^\W\d_]+")


def forbidden_words() -> dict[str, str]:
    """Word -> why no robot instruction may have it: names, kinds, numbers, and what references are made of."""
    found = {
        w: "a word of sums and comparisons"
        for w in ("sum", "plus", "times", "answer", "smallest", "largest", "number", "capital", "country", "colour", "same")
    }
    found |= dict.fromkeys(NUMBERS[2:], "a number") | dict.fromkeys((n.lower() for n in LANGUAGES.values()), "a language")
    found |= dict.fromkeys(GROUP_NAMES.values(), "a kind of thing")
    for key in [k for group in WEB_GROUPS for k in splits()[group]]:
        found |= dict.fromkeys(_WORD.findall(concepts()[key].name), f"in the name of {concepts()[key].name!r}")
    for key in splits()["robot"]:
        concept = concepts()[key]
        found |= dict.fromkeys(_WORD.findall(kind_of(concept)), "a kind of thing")
        for code in LANGUAGES:  # the word for it elsewhere, unless it is the same here
            words = set(_WORD.findall(translated_name(concept, code))) - set(_WORD.findall(concept.name))
            found |= dict.fromkeys(words, f"{concept.name!r} in {LANGUAGES[code]}")
    return {w: why for w, why in found.items() if w not in _EVERYDAY and len(w) > 2}


def leaks(manifest: dict[str, Any]) -> list[str]:
    """One line for everything in robot data that it must not have; empty when all is well.

    Raises:
        DataError: packed before pictures were noted, or not tabletop data.
    """
    if not manifest.get("shown"):
        raise DataError("leak test: this manifest does not say which pictures were shown; pack the tabletop's episodes again")
    reasons, lines = forbidden_words(), []
    used = {w for text in manifest["words"] for w in _WORD.findall(text.lower())}
    lines += [f"word {w!r}: {reasons[w]}" for w in sorted(used & set(reasons))]
    held_out, allowed = set(splits()["held_out_art"]), set(splits()["robot"])
    for art in manifest["shown"]:
        key = art.rsplit(":", 1)[0]
        if key not in allowed:
            lines.append(f"picture of {concepts()[key].name!r}: no robot may see it")
        elif art in held_out:
            lines.append(f"picture {art}: held-out art of {concepts()[key].name!r}")
    return lines
