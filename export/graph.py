"""An encoder's folder: the int8 graph, its tokenizer, and a card that says how it was checked.

Owns that nothing is written unless parity with torch was measured and is within its limits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from export import parity
from export.encoder import convert, provenance, source_folder, width
from export.pack import CARD_FILE, Card
from hydra_edge.types import Progress


def make_encoder(
    files: Sequence[Path],
    out: Path,
    *,
    source: Path | None,
    max_tokens: int,
    within: Sequence[parity.Limit] | None = None,
    progress: Progress,
) -> Card:
    """Convert an encoder to int8 ONNX, check it against torch, and write it with its card.

    Parameters
    ----------
    files
        Histories to measure on.
    out
        The folder for the graph, the tokenizer and the card.
    within
        Other limits of parity than ``export.parity.LIMITS``.

    Raises
    ------
    BundleError
        If a limit is missed; nothing is written then.
    """
    source, within = source or source_folder(), within or parity.LIMITS
    histories = parity.parity_histories(files)
    calibration = parity.calibration_texts(files, besides=histories)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        made = convert(source, work, calibration, max_tokens, progress=progress)
        card = Card(width(source), "mean", max_tokens, parity={}, provenance=provenance(source))
        figures = parity.measure(
            parity.TorchEncoder(source, max_tokens),
            parity.graph_encoder(work / "b32", made.float_graph, made.tokenizer, card),
            parity.graph_encoder(work / "b8", made.int8_graph, made.tokenizer, card),
            histories,
            progress=progress,
        )
        parity.check(figures, within)
        stated = {**figures, "limits": parity.limits(within)}
        card = Card(card.dim, card.pooling, max_tokens, stated, card.provenance)
        out.mkdir(parents=True, exist_ok=True)
        for path in (made.int8_graph, made.tokenizer):
            (out / path.name).write_bytes(path.read_bytes())
        card.save(out / CARD_FILE)
    return card
