"""Acting from an exported folder with onnxruntime, tokenizers and numpy, without torch.

Files of the folder:

- ``policy.onnx`` (heads without text): images, state, prompt ids and ``start`` (noise of a flow
  head, whose Euler steps are unrolled) to actions in [-1, 1];
- ``vision.onnx`` and ``text.onnx`` (heads with text): images and state to ``prefix``; ``prefix``,
  ``ids``, ``positions`` and ``past_*`` to hidden states and ``present_*``. ``text.onnx`` is the
  prefill (empty cache) and the decode step (empty prefix);
- ``logits.onnx``: logits of all tokens; ``legal.onnx``: logits of ``legal`` in ``decoding.json``;
  ``action.onnx``: the action after a chain of thought;
- ``weights.bin``: weights of all graphs, each tensor once;
- ``decoding.json``: prompt, plan format, legal tokens and their values; ``normalisation.json``,
  ``robot_spec.json``, ``tokenizer.json``; ``export.json``: opset and versions.

Rows of a call have prompts of equal length: graphs have no padding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import DataError
from vla.inference.exported_decoder import ExportedDecoder
from vla.inference.exported_text import Action, ActionRules, make_segments, sampling_pick
from vla.inference.exported_units import camera_views, chunk_values, robot_units
from vla.models.decoders.constraints import FreeText, Segments

FORMAT = 1  # of the exported folder
FILES = ("export.json", "decoding.json", "normalisation.json", "robot_spec.json", "tokenizer.json")


def load_exported(folder: str | Path, threads: int | None = None) -> ExportedPolicy:
    """The policy of a folder that ``vla export`` wrote.

    Args:
        threads: of onnxruntime; None: its default, one per core.

    Raises:
        DataError: a file is missing, damaged or of another version.
    """
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name}: missing; an exported policy has {', '.join(FILES)} and graphs; "
                "write it with vla export"
            )
    try:
        return ExportedPolicy(folder, threads)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            f"{folder}: damaged ({type(error).__name__}: {error}); export the policy again"
        ) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); export the policy again") from error


class ExportedPolicy:
    """A policy of one robot from an exported folder; use ``load_exported``."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        about = _read(folder / "export.json")
        if about.get("format") != FORMAT:
            raise DataError(
                f"{folder / 'export.json'}: format {about.get('format')}, expected {FORMAT}; "
                "export the policy again"
            )
        self.folder, self.about, self.robot = folder, about, str(about["robot"])
        self.spec_dict = _read(folder / "robot_spec.json")["robots"][self.robot]
        self.decoding = _read(folder / "decoding.json")
        self.units = _read(folder / "normalisation.json")
        self.decoder = ExportedDecoder(folder, about, self.decoding, threads)
        table = self.decoding["action"]
        self._rules = None if table is None else ActionRules(table)

    def uses_previous_plan(self) -> bool:
        """True if ``predict`` uses ``previous_plans``."""
        return bool(self.decoding["plan"] and self.decoding["plan"]["switch_margin"] > 0)

    def samples(self) -> bool:
        """True if ``predict`` draws random tokens and uses ``row_seeds``."""
        return bool(self.decoding["sampling"]["temperature"])

    def act(self, images: Any, instruction: str | Sequence[str], state: Any = None) -> np.ndarray:
        """Actions in robot units: (H, A) float32 for one observation, (B, H, A) for a list.

        Args:
            images: an (H, W, 3) uint8 array for a policy with one camera; or a dict from camera to
                such images; or a list of either.
            instruction: one text, or a list with one text for each observation.
            state: (P,) measured state in robot units, or (B, P) for a list.

        Raises:
            ValueError: an input is missing or invalid, or the policy needs frame history.
        """
        spec = self.spec_dict
        if spec["history"] > 1:
            raise ValueError(
                f"this policy needs a history of {spec['history']} frames; use predict"
            )
        single = not isinstance(images, list | tuple)
        rows = [images] if single else list(images)
        views = np.zeros((len(rows), 0, 0, 0, 3), np.uint8)
        if spec["cameras"]:
            views = np.stack([camera_views(spec, row) for row in rows])
        texts = [instruction] * len(rows) if isinstance(instruction, str) else list(instruction)
        if len(texts) != len(rows) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise ValueError(f"instruction: expected {len(rows)} texts that are not empty")
        states, width = None, spec["state_dim"]
        if width:
            states = np.asarray([] if state is None else state, np.float32)
            if states.size != len(rows) * width or not np.isfinite(states).all():
                raise ValueError(f"state: expected {width} finite numbers for each observation")
            states = states.reshape(len(rows), 1, width)
        images_BVTCHW = np.ascontiguousarray(views.transpose(0, 1, 4, 2, 3)[:, :, None])
        actions, _ = self.predict(images_BVTCHW, texts, states)
        return actions[0] if single else actions

    def predict(
        self,
        images_BVTCHW: Any,
        instructions: Sequence[str],
        state_BTP: Any = None,
        previous_plans: Sequence[str] = (),
        row_seeds: Sequence[int] = (),
        start_BHA: np.ndarray | None = None,
    ) -> tuple[np.ndarray, list[str]]:
        """See ``BasePolicy.predict``.

        Args:
            start_BHA: start of the integration of a flow head; None: drawn as the policy does.
        """
        images, count = np.asarray(images_BVTCHW), len(instructions)
        state = None if state_BTP is None else np.asarray(state_BTP, np.float32)
        prompt = self.decoding["prompt"]
        ids = [self.decoder.encode(prompt.replace("{instruction}", i)) for i in instructions]
        horizon, dim = self.spec_dict["horizon"], len(self.spec_dict["action_space"]["names"])
        actions, plans = np.zeros((count, horizon, dim), np.float32), [""] * count
        seeds = list(row_seeds) or list(range(count))
        if start_BHA is None and self.decoding["start_deviation"] is not None:
            noise = np.random.default_rng().standard_normal(actions.shape, np.float32)
            start_BHA = np.asarray(noise * self.decoding["start_deviation"], np.float32)
        for length in sorted({len(i) for i in ids}):  # a graph has no padding
            rows = [r for r in range(count) if len(ids[r]) == length]
            inputs = {} if not self.decoder.uses_images else {"images": images[rows]}
            if state is not None and self.decoder.uses_state:
                inputs["state"] = state[rows]
            before = [previous_plans[r] for r in rows] if previous_plans else []
            start = None if start_BHA is None else start_BHA[rows]
            found = self._group(
                inputs, [ids[r] for r in rows], before, [seeds[r] for r in rows], start
            )
            actions[rows] = found[0]
            for row, plan in zip(rows, found[1], strict=True):
                plans[row] = plan
        return robot_units(self.spec_dict, self.units, actions, state), plans

    def _group(
        self,
        inputs: dict[str, np.ndarray],
        ids: list[list[int]],
        previous: list[str],
        seeds: list[int],
        start: np.ndarray | None,
    ) -> tuple[np.ndarray, list[str]]:
        """Normalised actions and plans of rows whose prompts have equal length."""
        decoder, plan, plans = self.decoder, self.decoding["plan"], [""] * len(ids)
        if "policy" in decoder.graphs:
            return decoder.act("policy", inputs, ids, start), plans
        prefix = decoder.prefix(inputs, len(ids))
        written: list[tuple[FreeText | None, Action | None]] = []
        if self._rules is not None or plan["mode"] is not False:
            written = self._write(prefix, ids, self.decoding["segments"], seeds)
            plans = ["" if f is None else decoder.decode(f.tokens) for f, _ in written]
        kept = decoder.rows_keeping(prefix, ids, previous, plans)
        for row in kept:
            plans[row] = previous[row]
        if self._rules is None:
            whole = [i + decoder.plan_ids(p) for i, p in zip(ids, plans, strict=True)]
            acts = [
                decoder.act("action", {k: v[r : r + 1] for k, v in prefix.items()}, [w], s)
                for r, w in enumerate(whole)
                for s in [None if start is None else start[r : r + 1]]
            ]
            return np.concatenate(acts), plans
        for row in kept:
            forced = [{"kind": "forced", "ids": decoder.plan_ids(plans[row])}]
            one = {k: v[row : row + 1] for k, v in prefix.items()}
            written[row] = self._write(one, [ids[row]], forced, [seeds[row]])[0]
        symbols = [a.symbols for _, a in written if a is not None]
        return chunk_values(self.decoding["action"], symbols), plans

    def _write(
        self,
        prefix: dict[str, np.ndarray],
        ids: list[list[int]],
        described: list[dict[str, Any]],
        seeds: list[int],
    ) -> list[tuple[FreeText | None, Action | None]]:
        """Generate the text of every row: its plan and its action."""
        made: list[tuple[FreeText | None, Action | None]] = []
        texts = []
        for _ in ids:
            free: list[FreeText] = []
            segments: list[Any] = make_segments(described, self.decoding["vocabulary"], free)
            action = None if self._rules is None else Action(self._rules)
            if action is not None:
                segments.append(action)
            texts.append(Segments(segments))
            made.append((free[0] if free else None, action))
        self.decoder.generate(prefix, ids, texts, sampling_pick(self.decoding["sampling"], seeds))
        return made
