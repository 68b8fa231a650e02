"""Files replaced in one step: whoever writes them, killed or not."""

import ctypes
import gzip
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.cache import pack_answers
from export.labels import write_labels
from export.lines import write_packed
from export.shown import SHOWN_FILE, add_shown
from export.vectors import RememberingEncoder
from hydra_edge.githook import hooks, proposal
from hydra_edge.llm import models, recode
from hydra_edge.llm.kept import KeptStates
from hydra_edge.llm.recode import recode_q8
from hydra_edge.mcp.clients import add_server
from hydra_edge.privatefiles import changing, replacing, replacing_path, write_private
from hydra_edge.store import Store
from hydra_edge.types import Record
from tests.conftest import HashEncoder

ANSWER = json.dumps({"k": "key", "g": False, "c": [["answer", 1, None]]}) + "\n"


class Quantized(ctypes.Structure):
    _fields_ = (("ftype", ctypes.c_int), ("allow_requantize", ctypes.c_bool))


def quantize(_source: bytes, target: bytes, _params: object) -> int:
    Path(os.fsdecode(target)).write_bytes(b"GGUF, faster")
    return 0


LLAMA = SimpleNamespace(
    LLAMA_FTYPE_MOSTLY_Q8_0=7, llama_model_quantize_default_params=Quantized,
    llama_model_quantize=quantize,
)  # fmt: skip


def recode_model(target: Path) -> None:
    source = target.with_name("m.gguf")
    source.write_bytes(b"GGUF")
    assert recode_q8(source, target.parent) == target


def join_model(target: Path) -> None:
    part = target.with_name("part")
    part.write_bytes(b"GGUF")
    models._join([part], target, hashlib.sha256(b"GGUF").hexdigest())


def back_up(target: Path) -> None:
    with Store.open(target.with_name("history") / "me.db") as store:
        store.add([Record("a", "b")])
        store.back_up(target)


def install_hook(target: Path) -> None:
    hooks.install(SimpleNamespace(hooks_dir=target.parent), ["/opt/hydra-edge"], [], {})


def pack(target: Path) -> None:
    answers = target.with_suffix("")
    answers.write_text(ANSWER, encoding="utf-8")
    pack_answers(answers)


def remember(target: Path) -> None:
    encoder = RememberingEncoder(HashEncoder(), target, key="k")
    encoder.encode(["a text"])
    encoder.save()


@dataclass(frozen=True)
class Writer:
    """Who replaces a file: its name, what it holds before (None: no file), and how."""

    name: str
    before: bytes | None
    write: Callable[[Path], object]
    mode: int = 0o600


MESSAGE = b"# Please enter the commit message"
HOOK = hooks._script("prepare-commit-msg", ["/old/hydra-edge"], [], {}).encode()
STATE = KeptStates(Path(), "m")._path([1]).name

WRITERS = {
    "settings": Writer("config.toml", b"", lambda at: write_private(at, "log = true\n")),
    "state": Writer(STATE, b"", lambda at: KeptStates(at.parent, "m").write([1], b"state")),
    "recoded model": Writer("m-4.q8_0.gguf", None, recode_model, 0o644),
    "joined model": Writer("whole.gguf", b"half", join_model, 0o644),
    "backup": Writer("backup.db", b"the one before", back_up),
    "client": Writer("mcp.json", b'{"env": 1}', lambda at: add_server(at, {}), 0o640),
    "hook": Writer("prepare-commit-msg", HOOK, install_hook, 0o755),
    "message": Writer("MSG", MESSAGE, lambda at: proposal._replace(at, "A subject"), 0o640),
    "answers": Writer("a.jsonl.gz", gzip.compress(b""), pack, 0o644),
    "shown": Writer(
        SHOWN_FILE, gzip.compress(b""), lambda at: add_shown(at.parent, {("t", "u", "q"): ("1",)}),
        0o644,
    ),
    "labels": Writer("pools", b"", lambda at: write_labels(at, []), 0o644),
    "vectors": Writer("vectors.npz", b"", remember, 0o644),
}  # fmt: skip


@pytest.fixture(params=WRITERS)
def writer(request, monkeypatch, tmp_path):
    monkeypatch.setattr(recode, "import_llama_cpp", lambda: LLAMA)
    writer = WRITERS[request.param]
    if writer.before is not None:
        (tmp_path / writer.name).write_bytes(writer.before)
        (tmp_path / writer.name).chmod(0o640)
    return writer


@pytest.fixture(autouse=True)
def _usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def temporary(folder):
    return sorted(path.name for path in folder.glob(".*"))


def test_writer_killed_midway_leaves_the_old_file_and_no_other(writer, tmp_path, monkeypatch):
    def kill(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", kill)  # all is written, and has not got its name
    with pytest.raises(KeyboardInterrupt):
        writer.write(tmp_path / writer.name)
    target = tmp_path / writer.name
    assert (target.read_bytes() if target.exists() else None) == writer.before
    assert temporary(tmp_path) == []


def test_writer_removes_what_a_killed_one_left_hours_ago(writer, tmp_path):
    for name in ("old", "new"):
        (tmp_path / f".{writer.name}.{name}.tmp").write_text("a key")
    os.utime(tmp_path / f".{writer.name}.old.tmp", (time.time() - 7200,) * 2)
    writer.write(tmp_path / writer.name)
    assert temporary(tmp_path) == [f".{writer.name}.new.tmp"], "another may be writing that"


def test_writer_removes_what_another_left_of_a_file_of_another_name(writer, tmp_path):
    folder = tmp_path / "another"
    folder.mkdir()
    with replacing(folder / "backup-1.db"), replacing(folder / "backup-2.db"):
        old, new = temporary(folder)
    for name in (old, new, ".theirs.tmp"):
        (tmp_path / name).write_text("a history")
    for name in (old, ".theirs.tmp"):
        os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    writer.write(tmp_path / writer.name)
    assert temporary(tmp_path) == [new, ".theirs.tmp"]


def test_share_whose_clock_is_behind_keeps_what_another_is_writing(tmp_path, monkeypatch):
    stat = Path.stat

    def behind(path, **options):
        found = stat(path, **options)
        return os.stat_result((*found[:8], found.st_mtime - 7200, found.st_ctime))

    monkeypatch.setattr(Path, "stat", behind)
    with replacing(tmp_path / "backup.db") as stream:
        stream.write(b"a history")
        write_private(tmp_path / "other.txt", "words")
    assert (tmp_path / "backup.db").read_bytes() == b"a history"


def test_change_removes_what_a_killed_one_left_just_now(tmp_path):
    left = tmp_path / ".keys.json.1-1.tmp"
    others = tmp_path / ".config.toml.1-1.tmp"
    for path in (left, others):
        path.write_text("a key")
    with changing(tmp_path / "keys.json"):
        assert not left.exists()
    assert others.exists(), "that is another lock's"


def test_writer_gives_the_mode_of_its_kind_of_file(writer, tmp_path):
    target = tmp_path / writer.name
    writer.write(target)
    assert target.read_bytes() != writer.before
    assert mode(target) == writer.mode


# ---- replacing


def test_new_file_is_nobody_elses_while_it_is_written(tmp_path):
    os.umask(0)
    target, like = tmp_path / "file", tmp_path / "like"
    like.touch(0o444)
    with replacing(target, like=like) as stream:
        (name,) = temporary(tmp_path)
        assert mode(tmp_path / name) == 0o600
        stream.write(b"new")
    assert (target.read_bytes(), mode(target)) == (b"new", 0o444)


@pytest.mark.parametrize("replace", [replacing, replacing_path])
def test_body_that_fails_leaves_the_old_file(tmp_path, replace):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replace(target):
        _ = 1 / 0
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_file_that_cannot_be_replaced_is_an_error_and_leaves_nothing(tmp_path):
    target = tmp_path / "file"
    target.mkdir()
    with pytest.raises(IsADirectoryError), replacing(target) as stream:
        stream.write(b"new")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("once", "left"), [(True, "another's"), (False, "ours")])
def test_once_leaves_what_another_was_faster_to_write(tmp_path, once, left):
    target = tmp_path / "file"
    with replacing_path(target, once=once) as new:
        new.write_text("ours")
        target.write_text("another's")
    assert target.read_text() == left
    assert list(tmp_path.iterdir()) == [target]


def test_link_to_private_text_stays_a_link(tmp_path):
    kept, link = tmp_path / "kept", tmp_path / "link"
    link.symlink_to(kept)
    for text in ("one", "two"):  # the first makes what the link leads to
        write_private(link, text)
        assert link.is_symlink()
        assert (kept.read_text(), mode(kept)) == (text, 0o600)


def test_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_private(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_packed_lines_that_are_equal_are_equal_bytes(tmp_path):
    lines = ['{"id":"\ud83d"}', "x" * 100_000]
    for name in ("one", "two"):
        write_packed(tmp_path / name, iter(lines))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    text = gzip.decompress((tmp_path / "one").read_bytes()).decode("utf-8", "surrogatepass")
    assert text.split("\n") == [*lines, ""]
