"""Facts about countries: capitals and continents, from ``pycountry`` and ``countryinfo``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from vla.benchmarks.tabletop.web.concepts import Concept

_REGIONAL_INDICATOR_A, _REGIONAL_INDICATOR_Z = 0x1F1E6, 0x1F1FF  # a flag emoji is two of these


@dataclass(frozen=True)
class Country:
    """One country."""

    code: str  # ISO 3166 alpha-2
    name: str  # in English
    capital: str  # empty if unknown
    continent: str  # empty if unknown


@lru_cache(maxsize=1)
def countries() -> list[Country]:
    """All countries of ISO 3166, sorted by code."""
    import pycountry
    from countryinfo import CountryInfo

    rows = []
    for entry in sorted(pycountry.countries, key=lambda e: e.alpha_2):
        try:
            info = CountryInfo(entry.alpha_2)
            capital, region = str(info.capital() or ""), str(info.region() or "")
        except (KeyError, ValueError):
            capital = region = ""
        name = getattr(entry, "common_name", entry.name)
        rows.append(Country(entry.alpha_2, name, capital, region))
    return rows


def country_of(concept: Concept) -> Country | None:
    """The country of a flag; None for any other concept."""
    points = [int(p, 16) for p in concept.key.split("-")]
    if len(points) != 2 or not all(
        _REGIONAL_INDICATOR_A <= p <= _REGIONAL_INDICATOR_Z for p in points
    ):
        return None
    code = "".join(chr(p - _REGIONAL_INDICATOR_A + ord("A")) for p in points)
    return next((c for c in countries() if c.code == code), None)
