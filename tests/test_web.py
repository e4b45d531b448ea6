"""The web data of the tabletop: split, art, facts."""

from __future__ import annotations

import numpy as np
import pytest

from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.web.art import ART_SIZE, STYLES, has_art, load_art
from vla.benchmarks.tabletop.web.concepts import (
    concepts,
    keywords,
    object_concepts,
    package_dir,
    robot_concepts,
    splits,
    translated_name,
)
from vla.benchmarks.tabletop.web.countries import countries
from vla.benchmarks.tabletop.web.splits import make_splits


def test_the_committed_split_is_the_seeded_one() -> None:
    assert make_splits() == splits()
    assert len(splits()["robot"]) == 80 and not set(splits()["robot"]) & set(splits()["web_only"])


def test_every_robot_concept_has_art_in_three_styles() -> None:
    for concept in robot_concepts():
        art = [load_art(concept.key, style) for style in STYLES]
        assert all(a.shape == (ART_SIZE, ART_SIZE, 4) and a[..., 3].max() > 200 for a in art)
        assert not np.array_equal(art[0], art[1])


def test_scenes_show_either_the_held_out_art_or_the_other_art() -> None:
    shown, held_out = (
        {f"{key}:{s}" for key, styles in config.styles_by_concept().items() for s in styles}
        for config in (SceneConfig(), SceneConfig(held_out_art=True))
    )
    assert shown and not shown & held_out
    assert held_out == set(splits()["held_out_art"])


def test_errors_list_the_choices_or_the_extra() -> None:
    with pytest.raises(ValueError, match="choose one of noto, twemoji, openmoji"):
        load_art("1F34E", "apple")
    with pytest.raises(FileNotFoundError, match="no image of concept 'FFFF'"):
        load_art("FFFF", "noto")
    assert not has_art("FFFF", "openmoji")
    with pytest.raises(ValueError, match=r"give 1\.\.80"):
        SceneConfig(concepts=81)
    with pytest.raises(FileNotFoundError, match=r"pip install 'vla\[tabletop\]'"):
        package_dir("no_such_package")


def test_names_keywords_translations_and_countries() -> None:
    apple = concepts()["1F34E"]
    assert (apple.name, apple.category) == ("red apple", "fruit")
    assert translated_name(apple, "es") == "manzana roja"
    assert "apple" in keywords(apple)
    japan = next(c for c in countries() if c.name == "Japan")
    assert (japan.capital, japan.continent) == ("Tokyo", "Asia")
    assert len(object_concepts()) > 450
