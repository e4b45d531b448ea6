"""Policies on the hub: upload with a model card, download, and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY
from fake_hub import Hub, running_hub

from vla.errors import DataError
from vla.policies.checkpoint import load_policy
from vla.policies.folder import FILES
from vla.policies.hub import push
from vla.policies.model_card import model_card

POLICY = REPOSITORY / "experiments" / "tabletop_seen" / "policy"
NAME = "lab/seen"
# In a process of its own, because the library reads the address of the hub when it is imported.
ROUND_TRIP = """
import sys
from pathlib import Path
import numpy as np
from vla.policies.checkpoint import load_policy
policy = load_policy(sys.argv[1], "cpu")
image = np.full((64, 64, 3), 90, np.uint8)
print(*policy.act(image, "pick the cat")[0].tolist())
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as found:
        yield found


def run(hub: Hub, cache: Path, *command: str) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": "hf_test"}
    environment = os.environ | own | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300
    )


def test_the_model_card_has_robots_data_metrics_and_usage() -> None:
    card = model_card(POLICY, NAME, "mit")
    _, head, body = card.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["license"] == "mit" and facts["pipeline_tag"] == "robotics"
    assert "| dx | m | -0.08 | 0.08 |" in body and 'load_policy("hf://lab/seen")' in body
    assert "cameras: top (64x64 px)" in body and "| decoder | causal |" in body


def test_a_name_that_is_none_is_refused() -> None:
    for name in ("seen", "lab/a--b", "lab/seen.git", "lab/-seen", "lab/" + "a" * 100, "a/b/c"):
        with pytest.raises(DataError, match=f"{name}: expected owner/name"):
            push(POLICY, FILES, name, "", False)
    with pytest.raises(DataError, match="lab/a--b: expected owner/name"):
        load_policy("hf://lab/a--b")
    with pytest.raises(DataError, match="hf://seen: expected hf://owner/name"):
        load_policy("hf://seen")


@pytest.mark.slow
def test_a_pushed_policy_acts_as_the_saved_one(hub: Hub, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "-m", "vla", "push", str(POLICY), NAME, "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/{NAME}" and hub.private[NAME]
    assert {"README.md", *FILES[:3]} < hub.files[NAME].keys()
    assert "Bearer hf_test" in hub.tokens
    hub.files[NAME]["evil.py"] = b"raise SystemExit"
    image = np.full((64, 64, 3), 90, np.uint8)
    expected = load_policy(POLICY, "cpu").act(image, "pick the cat")[0]
    for address in (f"hf://{NAME}", f"hf://{NAME}@main"):
        done = run(hub, tmp_path, "-c", ROUND_TRIP, address)
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.array(done.stdout.split(), np.float32), expected)
    assert not list(tmp_path.rglob("evil.py"))  # only the files of a policy are downloaded
    done = run(hub, tmp_path, "-m", "vla", "info", "hf://lab/none")
    assert done.returncode == 2 and "hf://lab/none" in done.stderr
    assert "Traceback" not in done.stderr
