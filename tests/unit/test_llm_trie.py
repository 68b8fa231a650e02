"""The trie of allowed answers."""

from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.llm.trie import build_trie, forced


def walk(node):
    if node.choice is not None:
        yield node.path, node.choice
    for child in node.children.values():
        yield from walk(child)


@given(
    st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), unique=True, max_size=20
    )
)
def test_trie_holds_exactly_its_entries(paths):
    entries = {path: str(path) for path in paths}
    root = build_trie((choice, path) for path, choice in entries.items())
    assert dict(walk(root)) == entries


def test_trie_with_equal_tokens_keeps_the_first():
    root = build_trie([("a", [1]), ("b", [1])])
    assert list(walk(root)) == [((1,), "a")]


def test_forced_follows_a_single_way_up_to_a_choice():
    root = build_trie([("ab", [1, 2]), ("abcd", [1, 2, 3, 4])])
    node = forced(root)
    assert node.path == (1, 2)
    assert node.choice == "ab"
    assert forced(node.children[3]).path == (1, 2, 3, 4)


def test_forced_stays_where_ways_part():
    root = build_trie([("a", [1]), ("b", [2])])
    assert forced(root) is root
