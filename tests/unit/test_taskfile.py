"""A user's own task files: what is read, and what is said of one that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from hydra_edge.errors import ConfigError
from hydra_edge.taskfile import read_task_dir, read_task_file
from hydra_edge.tasks import BUILTIN, find_task


def test_read_task_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "Mood-Label.toml"
    path.write_text('kind = "label"\nlabels = ["good", "bad"]\nmax_tokens = 3\n')
    spec = read_task_file(path)
    assert (spec.name, spec.kind, spec.labels, spec.max_tokens) == (
        "mood_label", "label", ("good", "bad"), 3,
    )  # fmt: skip
    assert read_task_dir(tmp_path) == {"mood_label": spec}
    assert read_task_dir(tmp_path / "missing") == {}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("kind = 'poem'", "expected one of text, label, rating"),
        ("kind = ", "Expected TOML"),
        ("colour = 'red'", "Expected keys: name"),
        ("max_tokens = 'many'", "max_tokens .int."),
        ("kind = 'rating'\nlabels = ['good']", "expected numbers only"),
        ("kind = 'label'\nlabels = ['a', ' ']", "empty label"),
        ("kind = 'label'\nlabels = ['a', 'b', 'A ']", "'A ' after 'a', which is the same"),
        ("kind = 'rating'\nlabels = ['4', 5, '4.0']", "'4.0' after '4'"),
    ],
)
def test_read_task_file_bad_input_names_the_next_step(
    tmp_path: Path, text: str, match: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_task_file(path)


def test_read_task_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfmax_tokens = 7\n")
    assert read_task_file(path).max_tokens == 7


def test_read_task_dir_broken_file_concerns_its_own_task_only(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("max_tokens = 7\n")
    (tmp_path / "b.toml").write_text("broken")
    (tmp_path / "c.toml").write_text("name = 'Mood-Label'\nkind = 'poem'\n")
    (tmp_path / "d.toml").write_text("name = 4\n")
    tasks = read_task_dir(tmp_path)
    assert list(tasks) == ["a"]
    assert sorted(tasks.broken) == ["b", "d", "mood_label"]
    assert find_task("a", custom=tasks).max_tokens == 7
    assert find_task("commit_subject", custom=tasks) is BUILTIN["commit_subject"]
    for name, file in (("B", "b.toml"), ("mood-label", "poem"), ("d", "d.toml")):
        with pytest.raises(ConfigError, match=file):
            find_task(name, custom=tasks, outputs=["an answer"])


def test_read_task_dir_of_broken_files_only_is_not_taken_for_empty(tmp_path: Path) -> None:
    assert not read_task_dir(tmp_path)
    (tmp_path / "commit_subject.toml").write_text("broken")
    custom = read_task_dir(tmp_path) or {}
    with pytest.raises(ConfigError, match=r"commit_subject\.toml cannot be read"):
        find_task("commit_subject", custom=custom)
