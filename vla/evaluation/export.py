"""``vla export`` and ``vla merge``: write another form of a policy, compare it, and report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from vla.config import read_yaml
from vla.errors import ConfigError, ExportMismatch
from vla.evaluation.agreement import compare
from vla.inference.export import export_onnx, write_folder
from vla.inference.exported_bound import open_policy
from vla.inference.merge import merge_policy
from vla.models.heads.token import TokenHead
from vla.policies.checkpoint import load_policy, save_policy
from vla.policies.decoding import DecodingOptions, set_decoding
from vla.policies.folder import BASE, find_policy

Format = Literal["onnx", "policy"]


def run_export(
    policy_dir: Path,
    out: Path,
    form: Format = "onnx",
    quantize: Literal["int8"] | None = None,
    observations: int = 16,
    robot: str | None = None,
    decoding: DecodingOptions | None = None,
) -> dict[str, Any]:
    """Write ``out`` and return the report: agreement with the saved policy, and sizes in bytes.

    The folder gets its name only if both agree, see ``Agreement.within``. With ``quantize`` the
    agreement is reported and not required.

    Args:
        form: onnx: graphs for onnxruntime; policy: a whole policy with merged adapters.
        observations: number that are compared; 0: none.

    Raises:
        ConfigError: the policy cannot be exported in this form.
        ExportMismatch: the exported policy acts differently.
    """
    policy_dir = find_policy(policy_dir)
    if out.absolute() == policy_dir.absolute():
        raise ConfigError(f"{out}: is the saved policy itself; give another folder")
    if form == "policy" and quantize is not None:
        raise ConfigError("--quantize needs --format onnx")
    report: dict[str, Any] = {"folder": str(out), "format": form, "quantize": quantize}

    def check(candidates: dict[str, Any]) -> None:
        """Compare with the policy as it is on the disk."""
        report["agreement"] = {}
        for name, candidate in candidates.items() if observations else ():
            reference = open_policy(policy_dir, "cpu", name)
            set_decoding(reference, decoding)
            found = compare(reference, candidate, observations)
            report["agreement"][name] = found.to_dict() | {"text": str(found)}
            tokens = isinstance(getattr(reference.policy, "heads", [None])[0], TokenHead)
            if quantize is None and not found.within(tokens):
                raise ExportMismatch(
                    f"{out}: not written: the exported policy acts differently; robot {name}, "
                    f"{found}; please report it with policy.yaml"
                )

    if form == "policy":
        _merged(policy_dir, out, report, check)
    else:
        bound = open_policy(policy_dir, "cpu", robot)
        set_decoding(bound, decoding)

        def check_folder(folder: Path) -> None:
            check({bound.robot: open_policy(folder)})

        export_onnx(bound, out, quantize, check_folder)
    report["bytes"] = {f.name: f.stat().st_size for f in sorted(out.rglob("*")) if f.is_file()}
    report["policy_bytes"] = (policy_dir / "model.safetensors").stat().st_size
    return report


def _merged(policy_dir: Path, out: Path, report: dict[str, Any], check: Any) -> None:
    """Write a whole policy with merged adapters."""
    policy = load_policy(policy_dir, "cpu")
    config, report["merged_layers"] = merge_policy(policy, read_yaml(policy_dir / "policy.yaml"))
    if not report["merged_layers"] and not (policy_dir / BASE).is_file():
        raise ConfigError(f"{policy_dir}: is whole and has no adapters (lora); nothing to merge")

    def write(folder: Path) -> None:
        shutil.rmtree(folder)
        save_policy(policy, config, folder)
        saved = load_policy(folder, "cpu")
        check({name: saved.robot(name) for name in saved.specs})

    write_folder(out, write, "policy.yaml")


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    lines = [f"wrote {report['folder']}"]
    if report.get("merged_layers"):
        lines.append(f"merged the adapters of {report['merged_layers']} layers")
    for robot, found in report["agreement"].items():
        lines.append(f"robot {robot}: {found['text']}")
    total = sum(report["bytes"].values()) / 1e6
    lines.append(f"{total:.1f} MB in all (saved weights: {report['policy_bytes'] / 1e6:.1f} MB)")
    return lines
