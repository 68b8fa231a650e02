"""Kept states: whole, private, bounded, or not there."""

import os
import stat
import time

import pytest

from hydra_edge.llm.kept import KeptStates, file_identity

TOKENS = [1, 2, 3]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "states"


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def test_state_comes_back_for_the_same_tokens_and_model_only(folder):
    KeptStates(folder, "model a").write(TOKENS, b"state")
    assert KeptStates(folder, "model a").read(TOKENS) == b"state"
    assert KeptStates(folder, "model b").read(TOKENS) is None
    assert KeptStates(folder, "model a").read([1, 2]) is None
    assert KeptStates(folder, "model a").read([1, 23]) is None


def test_state_is_its_owners_alone(folder):
    KeptStates(folder, "m").write(TOKENS, b"state")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(folder).stat().st_mode) == 0o600


def test_states_half_written_by_killed_programs_are_removed(folder):
    folder.mkdir()
    for name in (".a.kv.1.tmp", ".b.kv.2.tmp"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".a.kv.1.tmp", (time.time() - 7200,) * 2)
    KeptStates(folder, "m").write(TOKENS, b"state")
    assert [path.name for path in folder.iterdir() if path.suffix == ".tmp"] == [".b.kv.2.tmp"]


def flipped(raw, place):
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: flipped(raw, 0),
        lambda raw: flipped(raw, 20),
        lambda raw: flipped(raw, len(raw) - 1),
    ],
)
def test_damaged_state_is_none_and_goes(folder, damage):
    kept = KeptStates(folder, "m")
    kept.write(TOKENS, b"state" * 9)
    path = only_file(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert kept.read(TOKENS) is None
    assert list(folder.iterdir()) == []
    kept.write(TOKENS, b"again")
    assert kept.read(TOKENS) == b"again"


def test_folder_over_its_cap_loses_what_was_read_longest_ago(folder):
    kept = KeptStates(folder, "m", cap_bytes=2600)
    for i in range(3):
        kept.write([i], bytes(800))
    for path in folder.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    assert kept.read([0]) is not None  # read now, so [1] or [2] is the oldest
    kept.write([3], bytes(800))
    have = [kept.read([i]) is not None for i in range(4)]
    assert sum(have) == 3
    assert have[0]
    assert have[3]


def test_state_larger_than_the_cap_is_not_kept(folder):
    kept = KeptStates(folder, "m", cap_bytes=100)
    kept.write(TOKENS, bytes(200))
    assert kept.read(TOKENS) is None


def test_place_that_cannot_be_written_keeps_nothing_and_harms_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    kept = KeptStates(tmp_path / "file" / "states", "m")
    kept.write(TOKENS, b"state")
    assert kept.read(TOKENS) is None


def test_file_that_changed_is_another_model(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF one")
    first = file_identity(path)
    assert file_identity(path) == first
    path.write_bytes(b"GGUF two")
    assert file_identity(path) != first
