"""The table of ``vla bench``."""

from __future__ import annotations

from typing import Any

_COLUMNS = ("p50_ms", "p99_ms", "prefill_ms", "decode_ms", "passes", "tokens")


def report(found: dict[str, Any]) -> str:
    """The results of ``measure`` as text; speeds are ratios of medians of the same run."""
    ways, theirs = found["ways"], found.get("generate")
    source = "consecutive steps of rollouts" if found["simulator"] else "random images"
    lines = [f"{found['steps']} {source}, {found['device']}, {found['threads']} threads"]
    lines += [f"vision encoder and connector: {found['vision_ms']:.2f} ms", ""]
    lines.append(f"{'language decoder':42}" + "".join(f"{c:>12}" for c in _COLUMNS) + "     speed")
    rows = {"Hugging Face generate": theirs} if theirs else {}
    first = (theirs or next(iter(ways.values())))["p50_ms"]
    for name, row in (rows | ways).items():
        cells = "".join(f"{row[c]:12.2f}" if c in row else f"{'':12}" for c in _COLUMNS)
        lines.append(f"{name:42}{cells}{first / row['p50_ms']:9.2f}x")
    single = [way for name, way in ways.items() if name.startswith("one token")][-1]
    lines += [
        "",
        f"decoding step of one token: {single['step_ms']:.2f} ms, "
        f"{single['step_ms'] / found['bound_ms']:.1f} times the time to read the weights "
        f"({found['bound_ms']:.2f} ms)",
        f"pass of the static cache: {found['pass'] or 'none'}",
        f"peak memory: {found['peak_memory_mb']:.0f} MiB",
        "tokens: all ways give the same" if found["equal_tokens"] else "tokens: the ways DIFFER",
    ]
    other = found.get("quantized")
    if other:
        lines.append(
            f"{other['weights']} weights: {100 * other['equal_tokens']:.1f} % of the tokens and "
            f"{other['equal_steps']} of {other['of']} texts are those of full precision"
        )
    if theirs:
        lines.append(f"tokens as generate: {theirs['equal_steps']} of {theirs['of']} steps")
    return "\n".join(lines)
