"""A trie of the allowed answers' tokens: which token may come next, and where an answer ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """One place in the trie; ``path`` is the tokens that lead to it, ``choice`` ends here."""

    path: tuple[int, ...] = ()
    children: dict[int, Node] = field(default_factory=dict)
    choice: str | None = None


def build_trie(entries: Iterable[tuple[str, Sequence[int]]]) -> Node:
    """Build the trie of answers and their tokens; of two with equal tokens the first stays."""
    root = Node()
    for choice, tokens in entries:
        node = root
        for token in tokens:
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = Node((*node.path, token))
            node = child
        if node.choice is None:
            node.choice = choice
    return root


def forced(node: Node) -> Node:
    """Follow the only way on as far as there is only one; a lone ending stays where it is."""
    while node.choice is None and len(node.children) == 1:
        (node,) = node.children.values()
    return node
