"""The card of a base of HYDRA as published: read back, verified, refused where it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_items import card_in

from export.published.card import CARD_FILE, read_card, read_cards, verify
from hydra_edge.errors import BundleError, BundleHashError, BundleVersionError


def test_card_is_read_back_and_verified(tmp_path: Path) -> None:
    card = card_in(tmp_path / "t")
    assert read_cards(tmp_path) == {tmp_path / "t": card}
    verify(tmp_path / "t", card)
    (tmp_path / "t" / "adapter.safetensors").write_text("other")
    with pytest.raises(BundleHashError, match=r"adapter\.safetensors: got sha256"):
        verify(tmp_path / "t", card)
    (tmp_path / "t" / "adapter.safetensors").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        verify(tmp_path / "t", card)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("", BundleError, "is no card"),
        ("[]", BundleError, "is no card"),
        ('{"format_version": 2}', BundleVersionError, "got format 2; expected 1"),
        ('{"format_version": 1, "task": "x"}', BundleError, "is no card"),
    ],
)
def test_card_that_is_none_is_refused(tmp_path: Path, text: str, error, match: str) -> None:
    card_in(tmp_path / "t")
    (tmp_path / "t" / CARD_FILE).write_text(text)
    with pytest.raises(error, match=match):
        read_card(tmp_path / "t")


@pytest.mark.parametrize(
    "changes", [{"files": {"../../passwd": "0"}}, {"trained_on": []}, {"max_tokens": "128"}]
)
def test_card_with_foreign_files_or_types_is_refused(tmp_path: Path, changes: dict) -> None:
    card_in(tmp_path / "t", **changes)
    with pytest.raises(BundleError, match="expected files"):
        read_card(tmp_path / "t")
