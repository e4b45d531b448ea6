"""Options that map recorded fields to actions, state, images and instructions."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla.data.images import Encoding, Flip
from vla.data.rotations import RotationConfig, RotationKind
from vla.types import ImageFit


@dataclass(frozen=True)
class Mapping:
    """Which recorded fields are used, and how. The defaults fit data sets with the usual names."""

    # Camera name -> recorded field. Default: every camera except depth cameras and those of which
    # all sampled images have one colour. {}: no images, for policies that use the state alone.
    cameras: dict[str, str] | None = None
    # Camera name -> rows: turn its images upside down; columns: mirror them; both: rotate them by
    # 180 degrees.
    flip: dict[str, Flip] = field(default_factory=dict)
    # Recorded fields of the state, in order; ``field[0:6]`` takes some of its dimensions.
    # Default: the field called state, qpos or proprio. []: no state.
    state: list[str] | None = None
    state_names: list[str] | None = None  # names of the state dimensions (default: the recorded)
    # Recorded fields of the action, in order; ``field[0:6]`` takes some of its dimensions.
    # Default: the field called action or actions.
    action: list[str] | None = None
    names: list[str] | None = None  # names of the action dimensions (default: the recorded names)
    units: list[str] | None = None  # units of the action dimensions (default: "recorded")
    # Action dimension -> threshold; values above it become 1, others 0.
    binary: dict[str, float] = field(default_factory=dict)
    # Action dimensions with whole numbers, for example a mode from 0 to 2; policies predict only
    # whole numbers for them.
    integer: list[str] = field(default_factory=list)
    # Action dimensions that become 1 - x, before thresholds (opposite gripper convention).
    invert: list[str] = field(default_factory=list)
    # Action dimension -> state dimension: absolute targets are packed as differences to the state.
    delta: dict[str, str] = field(default_factory=dict)
    # True: the state ends with the previous action ("last <dim>"). Before the first action it is
    # the state dimension of the same name, or 0. The policy needs this input at run time too.
    append_previous_action: bool = False
    # Conversions of the rotations in the action.
    rotations: list[RotationConfig] = field(default_factory=list)
    # Representation of the rotation in the action, which servers state to clients (default: the
    # target of ``rotations``, or not stated).
    rotation: RotationKind | None = None
    # Action dimensions that are targets; servers state them to clients.
    absolute: list[str] = field(default_factory=list)
    # Action dimensions that are movements, beside those of ``delta`` and ``accumulate``; servers
    # state them to clients.
    relative: list[str] = field(default_factory=list)
    fps: float | None = None  # recorded rows per second; needed where the format has no rate
    rate_hz: float | None = None  # rows per second to keep, at most fps (default: all rows)
    # Action dimensions that are movements since the previous row; they are summed over dropped
    # rows.
    accumulate: list[str] = field(default_factory=list)
    # A text field, or a template such as "{task}, slowly" (default: the format's instruction). It
    # may change from row to row; rows without text are not trained.
    instruction: str | None = None
    # Field with the scene or operator (a text or one number); validation episodes are drawn from
    # every value.
    group: str | None = None
    plan: str | None = None  # text field with the next subtask (chain of thought); default: none
    # Distances that become grey levels 0 and 255 in depth cameras that ``cameras`` names, mm.
    depth_range_mm: tuple[float, float] = (0.0, 3000.0)
    size: int = 224  # side of the packed square images, px
    # stretch: the whole image; crop: its central square; pad: the whole image on black.
    fit: ImageFit = "stretch"
    # jpeg; or ppm: lossless and faster to read, several times the disk space.
    image_format: Encoding = "jpeg"
