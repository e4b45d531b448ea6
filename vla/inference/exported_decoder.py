"""The graphs of an exported policy: sessions of onnxruntime, and generation of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import DataError
from vla.inference.exported_text import Pick
from vla.models.decoders.constraints import Segments

GRAPHS = ("vision", "text", "logits", "legal", "action", "policy")
Arrays = dict[str, np.ndarray]


class ExportedDecoder:
    """Runs the graphs; rows of a call have texts of equal length.

    Args:
        folder: of the exported policy.
        about: ``export.json``.
        decoding: ``decoding.json``.
        threads: of onnxruntime; None: one per core.

    Raises:
        DataError: a graph or the tokenizer is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        decoding: Mapping[str, Any],
        threads: int | None = None,
    ) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        self.decoding, self.graphs = decoding, {}
        for name in about["graphs"]:
            if name not in GRAPHS:
                raise DataError(f"{folder / 'export.json'}: no graph is called {name!r}")
            path = folder / f"{name}.onnx"
            try:
                self.graphs[name] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime has no common base for its errors
                reason = str(error).strip().partition("\n")[0]
                raise DataError(
                    f"{path}: missing or damaged ({reason}); export the policy again"
                ) from error
        try:
            self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # tokenizers raises plain exceptions
            raise DataError(
                f"{folder / 'tokenizer.json'}: not a tokenizer ({error}); export the policy again"
            ) from error
        self.inputs = {n: [i.name for i in g.get_inputs()] for n, g in self.graphs.items()}
        first = self.inputs.get("policy") or self.inputs.get("vision", [])
        self.uses_images, self.uses_state = "images" in first, "state" in first
        self._column = {token: column for column, token in enumerate(decoding["legal"])}
        self._columns: dict[bytes, np.ndarray] = {}

    # -- text -------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a plan."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        for old, new in self.decoding["text_replacements"]:
            text = text.replace(old, new)
        return text.strip()

    def plan_ids(self, plan: str) -> list[int]:
        """Token ids between prompt and action for a plan; empty: none."""
        about, plan = self.decoding["plan"], plan.strip()
        text = about["text"].replace("{plan}", plan) if plan else about["text_without_plan"]
        before = self.encode(about["after"])
        joined = self.encode(about["after"] + text)
        return joined[len(before) :] if joined[: len(before)] == before else self.encode(text)

    # -- graphs -----------------------------------------------------------------------------------

    def _run(self, name: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        used = {key: inputs[key] for key in self.inputs[name]}
        return self.graphs[name].run(None, used)

    def prefix(self, inputs: Arrays, rows: int) -> Arrays:
        """The embeddings before the text, and the tokens of cross-attention."""
        missing = [name for name in self.inputs["vision"] if name not in inputs]
        if missing:
            raise ValueError(f"this policy needs {missing[0]}")
        return dict(zip(("prefix", "cross"), self._run("vision", inputs), strict=False))

    def act(
        self, name: str, inputs: Arrays, ids: list[list[int]], start: np.ndarray | None
    ) -> np.ndarray:
        """Normalised actions (B, H, A) of the graph ``policy`` or ``action``."""
        given = inputs | {"ids": self._checked(ids)} | ({} if start is None else {"start": start})
        missing = [n for n in self.inputs[name] if n not in given]
        if missing:
            raise ValueError(f"this policy needs {missing[0]}")
        return self._run(name, given)[0]

    def _checked(self, ids: list[list[int]]) -> np.ndarray:
        """(B, S) ids; ValueError if the table of positions has no room for them."""
        most, length = self.decoding["max_tokens"], len(ids[0])
        if most is not None and length > most:
            raise ValueError(
                f"a text has {length} tokens, but the decoder's table of positions has room for "
                f"{most}; use a shorter instruction"
            )
        return np.array(ids, np.int64)

    def _text(
        self, prefix: Arrays, ids_BS: np.ndarray, first: int, past: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Hidden states (B, S, D) of the ids, and the cache; ``past`` None: read the prefix."""
        rows, width = len(ids_BS), prefix["prefix"].shape[2]
        positions = first + np.arange(ids_BS.shape[1])
        names = [n for n in self.inputs["text"] if n.startswith("past_")]
        before = prefix["prefix"]
        if past is None:
            positions = np.concatenate([self.decoding["prefix_positions"], positions])
            shapes = self.decoding["cache"]
            past = [np.zeros((rows, h, 0, d), np.float32) for h, d in shapes]
        else:
            before = np.zeros((rows, 0, width), np.float32)
        given = dict(zip(names, past, strict=True)) | {
            "prefix": before,
            "ids": ids_BS,
            "positions": np.tile(positions.astype(np.int64), (rows, 1)),
        }
        if "cross" in prefix:
            given["cross"] = prefix["cross"]
        hidden, *present = self._run("text", given)
        return hidden, present

    def generate(
        self, prefix: Arrays, ids: list[list[int]], texts: Sequence[Segments], pick: Pick
    ) -> None:
        """Generate until every text is done; the texts collect the tokens."""
        first = self.decoding["first_position"]
        hidden, past = self._text(prefix, self._checked(ids), first, None)
        position = first + len(ids[0])
        while True:
            chosen = self._next(hidden[:, -1], texts, pick)
            if all(text.done for text in texts):
                return
            hidden, past = self._text(prefix, chosen[:, None], position, past)
            position += 1

    def _next(self, hidden_BD: np.ndarray, texts: Sequence[Segments], pick: Pick) -> np.ndarray:
        """(B,) the next token of every text; rows that are done read the end-of-text token."""
        chosen = np.full(len(texts), self.decoding["eos"], np.int64)
        allowed: dict[int, Any] = {r: t.allowed() for r, t in enumerate(texts) if not t.done}
        most = self.decoding["vocabulary"] - 1  # free text allows all tokens, or all but one
        free = [row for row, ids in allowed.items() if ids is None or len(ids) >= most]
        ruled = [row for row, ids in allowed.items() if row not in free and len(ids) > 1]
        logits: dict[int, np.ndarray] = {}
        for name, rows in (("logits", free), ("legal", ruled)):
            if rows:
                found = self._run(name, {"hidden": hidden_BD[rows]})[0]
                logits |= dict(zip(rows, found, strict=True))
        for row, ids in allowed.items():
            if ids is None:
                token = pick(logits[row], row)
            elif row in logits:
                columns = ids if row in free else self._legal_columns(ids)
                token = int(ids[pick(logits[row][columns], row)])
            else:  # one token; a random choice uses a random number here, too
                token = int(ids[pick(np.zeros(1, np.float32), row)])
            chosen[row] = texts[row].push(token)
        return chosen

    def _legal_columns(self, ids: np.ndarray) -> np.ndarray:
        """Columns of these ids in the graph ``legal``."""
        key = ids.tobytes()
        if key not in self._columns:
            self._columns[key] = np.array([self._column[token] for token in ids.tolist()])
        return self._columns[key]

    def rows_keeping(
        self,
        prefix: Arrays,
        ids: list[list[int]],
        previous: Sequence[str],
        new: Sequence[str],
    ) -> list[int]:
        """Rows that keep their previous plan, see ``models/heads/plan_hysteresis.py``."""
        if not previous:
            return []
        margin, kept = self.decoding["plan"]["switch_margin"], []
        for row, (old, now) in enumerate(zip(previous, new, strict=True)):
            if old and old != now:
                one = {name: values[row : row + 1] for name, values in prefix.items()}
                if self._nats(one, ids[row], old) < self._nats(one, ids[row], now) + margin:
                    kept.append(row)
        return kept

    def _nats(self, prefix: Arrays, ids: list[int], plan: str) -> float:
        """Negative log-likelihood of a plan after the prompt."""
        target = self.plan_ids(plan)
        first = self.decoding["first_position"]
        hidden, _ = self._text(prefix, self._checked([ids + target]), first, None)
        logits = self._run("logits", {"hidden": hidden[0, len(ids) - 1 : -1]})[0]
        high = logits.max(-1, keepdims=True)
        normaliser = np.log(np.exp(logits - high).sum(-1)) + high[:, 0]
        return float((normaliser - logits[np.arange(len(target)), target]).sum())
