"""Options of the policy of four slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from vla.config import Slot
from vla.models.actions.normalise import Mode


@dataclass(frozen=True)
class VLAPolicyConfig:
    """The section ``policy:`` of a run, for ``name: vla``."""

    # Language model, or a whole vision-language model.
    decoder: Annotated[dict[str, Any], Slot("decoder")]
    # Action head; each robot gets its own, of the size of its action space.
    head: Annotated[dict[str, Any], Slot("head")]
    # Vision encoder; none if the decoder is a whole vision-language model. Robots without cameras
    # do not use it.
    vision: Annotated[dict[str, Any], Slot("vision")] | None = None
    # Module from image tokens to token embeddings; none as above.
    connector: Annotated[dict[str, Any], Slot("connector")] | None = None
    # What becomes [-1, 1]: bounds of the action space, quantiles q01 to q99 or min_max of the data,
    # z_score (mean +- 3 standard deviations), or identity.
    normalise: Mode = "bounds"
    # Another mapping for some action dimensions, by name.
    normalise_dims: dict[str, Mode] | None = None
    # Weight of the mean web loss in the training loss.
    web_weight: float = 1.0
    # Weight of the mean robot loss in the training loss.
    robot_weight: float = 1.0
    # Give the decoder the measured robot state as one more token.
    state: bool = False
