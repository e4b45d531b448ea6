"""The offline web: the committed split is what the seed gives, pictures exist, facts are facts."""

from __future__ import annotations

import numpy as np
import pytest

from vla.sim.scene import SceneConfig
from vla.web.knowledge import concepts, countries, keywords, object_concepts, robot_concepts, splits, translated_name
from vla.web.pictures import PICTURE_PX, STYLES, has_picture, picture
from vla.web.splits import make_splits


def test_the_committed_split_is_the_seeded_one() -> None:
    assert make_splits() == splits()
    assert len(splits()["robot"]) == 80 and not set(splits()["robot"]) & set(splits()["web_only"])


def test_every_robot_concept_has_three_different_pictures() -> None:
    for concept in robot_concepts():
        art = [picture(concept.key, style) for style in STYLES]
        assert all(a.shape == (PICTURE_PX, PICTURE_PX, 4) and a[..., 3].max() > 200 for a in art)
        assert not np.array_equal(art[0], art[1])


def test_held_out_art_is_kept_apart() -> None:
    shown, held = set(SceneConfig().pool()), set(SceneConfig(held_out_art=True).pool())
    assert shown and held and not shown & held
    assert {f"{k}:{s}" for k, s in held} == set(splits()["held_out_art"])


def test_unknown_styles_and_pictures_are_named() -> None:
    with pytest.raises(ValueError, match="choose one of noto, twemoji, openmoji"):
        picture("1F34E", "apple")
    with pytest.raises(FileNotFoundError, match="no picture of 'FFFF'"):
        picture("FFFF", "noto")
    assert not has_picture("FFFF", "openmoji")
    with pytest.raises(ValueError, match=r"give 1\.\.80"):
        SceneConfig(concepts=81)


def test_knowledge() -> None:
    apple = concepts()["1F34E"]
    assert (apple.name, apple.category) == ("red apple", "fruit") and translated_name(apple, "es") == "manzana roja"
    assert "apple" in keywords(apple)
    assert any(c.name == "Japan" and c.capital == "Tokyo" and c.continent == "Asia" for c in countries())
    assert len(object_concepts()) > 450
