"""Decoded windows to a Batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vla.errors import DataError
from vla.types import Batch, RobotBatch, WebBatch


def collate(items: list[tuple[str, dict[str, Any]]], robot_of: dict[str, str]) -> Batch:
    """A batch of (data set, decoded window) pairs; robots in order of their names.

    robot_of: data set -> robot.

    Raises:
        DataError: images of different sizes.
    """
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    web = []
    for name, item in items:
        if "web" in item:
            web.append((name, item))
        else:
            groups.setdefault(robot_of[name], []).append((name, item))
    return Batch(
        [_robot_rows(r, groups[r]) for r in sorted(groups)], _web_rows(web) if web else None
    )


def _image_index(counts: list[int]) -> torch.Tensor:
    """The image row of each text, from the number of texts per row."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def _images(frames: list[np.ndarray]) -> torch.Tensor:
    """(H, W, 3) images to a (n, 3, H, W) view. ``Batch.to`` reorders the memory on the device."""
    shapes = {f.shape for f in frames}
    if len(shapes) > 1:
        raise DataError(
            f"images of different sizes in one batch: {sorted(shapes)}; "
            "pack the data sets with one size, or choose cameras of one size with "
            "data.window.cameras=[NAME]"
        )
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def _robot_rows(robot: str, items: list[tuple[str, dict[str, Any]]]) -> RobotBatch:
    rows = [i for _, i in items]
    views, past = len(rows[0]["images"]), rows[0]["history"]
    # Without cameras the images have no views: (B, 0, T, 3, 0, 0).
    frames = torch.zeros((0, 3, 0, 0), dtype=torch.uint8)
    if views:
        frames = _images([f for i in rows for view in i["images"] for f in view])
    states = [i["state"] for i in rows]
    return RobotBatch(
        robot=robot,
        images_BVTCHW=frames.reshape(len(rows), views, past, *frames.shape[1:]),
        instructions=[t for i in rows for t in i["texts"]],
        plans=[p for i in rows for p in i["plans"]],
        actions_KHA=torch.from_numpy(np.concatenate([i["actions"] for i in rows])).float(),
        mask_KH=torch.from_numpy(np.concatenate([i["masks"] for i in rows])),
        image_index_K=_image_index([len(i["texts"]) for i in rows]),
        sources=[n for n, _ in items],
        state_BTP=None
        if any(s is None for s in states)
        else torch.from_numpy(np.stack(states)).float(),
    )


def _web_rows(items: list[tuple[str, dict[str, Any]]]) -> WebBatch:
    rows = [i for _, i in items]
    qa = [q for i in rows for q in i["qa"]]
    return WebBatch(
        images_BCHW=_images([i["web"] for i in rows]),
        questions=[q["question"] for q in qa],
        answers=[q["answer"] for q in qa],
        image_index_K=_image_index([len(i["qa"]) for i in rows]),
        attend_image_K=torch.tensor([bool(q["needs_image"]) for q in qa]),
        sources=[n for n, _ in items],
        turns=[q.get("turns", []) for q in qa],
    )
