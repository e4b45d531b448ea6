"""A plan for people, and the table of several plans."""

from __future__ import annotations

from vla.training.planning.plan import Plan
from vla.training.planning.specimen import ACTIONS, SIDE, STATE

_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimiser states",
    "gathered": "gathered for a step",
    "activations": "activations",
    "total": "total",
}
HEADER = (
    "recipe",
    "GPUs",
    "million parameters",
    "of them trained",
    "GFLOP a row",
    "rows a GPU",
    "GiB a GPU",
    "largest rows a GPU",
    "steps a second",
    "hours",
)


def describe(found: Plan) -> list[tuple[str, str]]:
    """(name, value) of each line."""
    trained = "" if found.trainable == found.parameters else f", {number(found.trainable)} trained"
    usable = f"{found.usable:.1f} GiB of the GPU can be used"
    fits = found.largest_rows_per_gpu >= found.rows_per_gpu
    rows = f"{found.rows_per_gpu} rows on each GPU, at most {found.largest_rows_per_gpu} fit"
    lines = [
        ("hardware", f"{found.count} x {found.gpu}, {found.strategy}, {found.precision}"),
        ("parameters", f"{number(found.parameters)}{trained}"),
        ("compute", f"{found.gflops_per_row:.4g} GFLOP for one image row, forward and backward"),
        *((f"memory: {text}", f"{getattr(found, name):.2f} GiB") for name, text in _PARTS.items()),
        ("batch", f"{rows}; {usable}" + ("" if fits else "; it does NOT fit")),
        (
            "time",
            f"{found.steps_per_second:.3g} steps/s at {found.utilisation:.0%} of the GPU's peak, "
            f"{found.hours:.3g} h for {found.steps} steps",
        ),
    ]
    return [line for line in lines if found.gathered or "gathered" not in line[0]]


def note_assumed(found: Plan) -> str | None:
    """The sentence about data sets that are not packed; None if all are."""
    if not found.assumed:
        return None
    return (
        f"not packed: {', '.join(found.assumed)}; the plan assumes robot data with images of "
        f"{SIDE} px, {ACTIONS} action and {STATE} state dimensions"
    )


def row(name: str, found: Plan) -> list[str]:
    """The cells of ``HEADER``."""
    return [
        name,
        f"{found.count} x {found.gpu}",
        f"{found.parameters / 1e6:.0f}",
        f"{found.trainable / 1e6:.0f}",
        f"{found.gflops_per_row:.0f}",
        str(found.rows_per_gpu),
        f"{found.total:.1f}",
        str(found.largest_rows_per_gpu),
        f"{found.steps_per_second:.2f}",
        f"{found.hours:.1f}",
    ]


def number(count: int) -> str:
    """A count of parameters, for example 221.1M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return str(count)
