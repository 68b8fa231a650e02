"""Messages of applications that cut an emoji in two."""

from __future__ import annotations

import json

import pytest

from hydra_edge.mcp.stdin import mended


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (rb'{"q": "cut \ud83d"}', "cut \ufffd"),
        (rb'{"q": "cut \uDE00\u0000\n"}', "cut \ufffd\0\n"),
        (rb'{"q": "whole \ud83d\ude00"}', "whole \U0001f600"),
        (rb'{"q": "no escape: \\ud83d"}', r"no escape: \ud83d"),
        (b'{"q": "\xff and \\ud83d"}', "\ufffd and \ufffd"),
    ],
)
def test_mended_half_a_character_becomes_one_that_can_be_sent(sent: bytes, text: str) -> None:
    (line,) = mended(sent + b"\n").splitlines(keepends=True)
    assert line.endswith(b"\n")
    assert json.loads(line) == {"q": text}


@pytest.mark.parametrize(
    "line", [b'{"q":  "\\u00e9"}\r\n', b"\n", b'{"q": "\\ud83d\n', b"[" * 100_000 + b"\\ud\n"]
)
def test_mended_leaves_any_other_line_as_it_came(line: bytes) -> None:
    assert mended(line) == line
