"""The verb that uploads a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def push(
    policy: Annotated[Path, typer.Argument(help="folder of a saved policy")],
    name: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub")],
    private: Annotated[bool, typer.Option("--private", help="of a new repository")] = False,
    licence: Annotated[
        Optional[str], typer.Option("--license", help="for the model card, for example mit")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the model card; upload nothing")
    ] = False,
) -> None:
    """Upload a policy, with a model card from its run; then hf://owner/name loads it.

    Needs `hf auth login`, or a token in HF_TOKEN.
    """
    from vla.policies.base_weights import check_portable
    from vla.policies.folder import BASE, FILES, find_policy
    from vla.policies.hub import check_name
    from vla.policies.hub import push as upload
    from vla.policies.model_card import model_card

    check_name(name)
    folder = find_policy(policy)
    check_portable(folder)
    card = model_card(folder, name, licence)
    if dry_run:
        print(card)
        return
    print(upload(folder, (*FILES, BASE), name, card, private))
