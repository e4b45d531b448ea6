"""Options of the web data."""

from __future__ import annotations

from dataclasses import dataclass

from vla.benchmarks.tabletop.web.art import STYLES
from vla.benchmarks.tabletop.web.concepts import WEB_GROUPS, robot_concepts, splits


@dataclass(frozen=True)
class WebConfig:
    """The images and questions of the web data."""

    objects: tuple[int, int] = (1, 4)  # smallest and largest number of objects per image
    single_object_share: float = 0.4  # share (0 to 1) of images that show one object
    concepts: int = 80  # the first N robot concepts of ``splits.json``, 1 to 80
    include_web_only: bool = True  # add the objects that robot data never shows
    # Further groups of ``splits.json``: unseen, digits, icons, flags, people, shapes.
    groups: tuple[str, ...] = ()
    facts: int = 1  # questions per sample that need no image, at least 0
    # Questions per image that refer to an object by a property ("find the fruit."), at least 0.
    find_questions: int = 0
    varied_phrases: bool = False  # True: 21 templates for find questions; False: "find the ..."
    # Share (0 to 1) of the find questions in command form that use the words of the robot prompt.
    robot_prompt_share: float = 0.0
    # True: all types of reference are equally frequent; False: all objects are.
    balance_reference_types: bool = False
    # With find questions: share (0 to 1) of the images with at least three objects in which all
    # objects but one have the same category.
    odd_one_out_share: float = 0.25
    # With find questions and the group shapes: share (0 to 1) of the images with at least three
    # objects that become images of three shapes.
    shape_colour_share: float = 0.15
    any_background: bool = False  # True: backgrounds of any colour; False: light ones
    # Share (0 to 1) of images that show tiles on the table, often with the gripper. The other
    # images show loose objects. (RT-2 for Language-Table also learned to locate the arm.)
    on_table_share: float = 0.5
    size: int = 64  # side of the images, px, at least 16
    styles: tuple[str, ...] = STYLES  # art styles: subset of noto, twemoji, openmoji

    def __post_init__(self) -> None:
        unknown = [g for g in self.groups if g not in WEB_GROUPS]
        if unknown:
            raise ValueError(
                f"web.groups: unknown group {unknown[0]!r}; choose from {', '.join(WEB_GROUPS)}"
            )

    def concept_keys(self) -> list[str]:
        """Keys of the concepts that images may show."""
        keys = [c.key for c in robot_concepts(self.concepts)]
        keys += splits()["web_only"] if self.include_web_only else []
        keys += [key for group in self.groups for key in splits()[group]]
        return list(dict.fromkeys(keys))
