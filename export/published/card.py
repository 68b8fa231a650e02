"""What a trained pair of cross-encoders says of itself, and the check that it is still that.

A folder holds one folder for each task: config and tokenizer, one safetensors file a role, and
a card with the sha256 of each. Nothing is parsed before it is verified. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from export.data import sha256_of
from hydra_edge.errors import BundleError, BundleHashError, BundleVersionError
from hydra_edge.types import JsonDict, Role

FORMAT_VERSION = 1
CARD_FILE = "card.json"
ROLES: tuple[Role, ...] = get_args(Role)
FILES = ("config.json", "tokenizer.json", *(f"{role}.safetensors" for role in ROLES))
_AGAIN = "Train it again: python -m export published --help."


@dataclass(frozen=True)
class Card:
    """How one task's encoders were trained.

    ``trained_on`` holds file names and their fingerprints (``export.data.fingerprint``);
    ``roles`` each role's figures; ``files`` the sha256 of every file beside the card.
    """

    task: str
    max_tokens: int
    llm: str
    users: int
    plan: JsonDict
    roles: dict[str, JsonDict]
    source: JsonDict
    trained_on: dict[str, str]
    files: dict[str, str]
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write it as JSON; the same card gives the same bytes."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
        (folder / CARD_FILE).write_text(text, encoding="utf-8")


def read_card(folder: Path) -> Card:
    """Read a card; the files it names are not looked at.

    Raises
    ------
    BundleVersionError
        If it is of another format.
    BundleError
        If it is none.
    """
    path = folder / CARD_FILE
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        version = stated.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleVersionError(
                f"{path}: got format {version!r}; expected {FORMAT_VERSION}. {_AGAIN}"
            )
        card = Card(**stated)
        bad = _badly_typed(card)
    except (OSError, ValueError, TypeError, AttributeError) as err:
        raise BundleError(f"{path} is no card of trained cross-encoders: {err}. {_AGAIN}") from err
    if bad or set(card.files) != set(FILES):
        what = f"{', '.join(bad)} of the wrong type" if bad else f"files {sorted(card.files)}"
        raise BundleError(f"{path}: got {what}; expected files {sorted(FILES)}. {_AGAIN}")
    return card


def _badly_typed(card: Card) -> list[str]:
    expected: Mapping[str, type] = {
        "task": str, "max_tokens": int, "llm": str, "users": int, "plan": dict, "roles": dict,
        "source": dict, "trained_on": dict, "files": dict,
    }  # fmt: skip
    return [name for name, kind in expected.items() if not isinstance(getattr(card, name), kind)]


def read_cards(folder: Path) -> dict[Path, Card]:
    """Read the cards of every task in a folder, by the task's own folder.

    Raises
    ------
    BundleError
        If there is none, or one cannot be read.
    """
    found = {path.parent: read_card(path.parent) for path in sorted(folder.glob(f"*/{CARD_FILE}"))}
    if not found:
        raise BundleError(
            f"{folder}: found no */{CARD_FILE}; expected a folder with one for each task. {_AGAIN}"
        )
    return found


def verify(folder: Path, card: Card) -> None:
    """Check every file against its card.

    Raises
    ------
    BundleHashError
        If a file is not what the card states.
    BundleError
        If one cannot be read.
    """
    for name, stated in sorted(card.files.items()):
        try:
            found = sha256_of(folder / name)
        except OSError as err:
            raise BundleError(f"{folder / name} cannot be read: {err}. {_AGAIN}") from err
        if found != stated:
            raise BundleHashError(
                f"{folder / name}: got sha256 {found[:12]}; expected {stated[:12]}. {_AGAIN}"
            )
