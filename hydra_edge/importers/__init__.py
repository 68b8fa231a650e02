"""History readers: each turns one format into an iterator of records.

An importer streams, reports a bad item by number and goes on, and raises
``ImportFormatError`` only if the source as a whole cannot be read. Nothing is opened before
the first record is asked for. Importers know nothing of the store.
"""

from __future__ import annotations

from hydra_edge.importers.chatgpt import read_chatgpt
from hydra_edge.importers.claude import read_claude
from hydra_edge.importers.git import read_git
from hydra_edge.importers.jsonl import read_jsonl
from hydra_edge.importers.lamp import read_lamp
from hydra_edge.importers.log import BadLine, ImportLog
from hydra_edge.importers.markdown import read_markdown
from hydra_edge.importers.mbox import read_mbox
from hydra_edge.importers.slack import read_slack
from hydra_edge.importers.table import read_csv

__all__ = [
    "BadLine",
    "ImportLog",
    "read_chatgpt",
    "read_claude",
    "read_csv",
    "read_git",
    "read_jsonl",
    "read_lamp",
    "read_markdown",
    "read_mbox",
    "read_slack",
]
