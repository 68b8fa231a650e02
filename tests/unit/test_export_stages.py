"""Stages of a build: what makes one run, what a stopped one leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from export.data import sha256_of
from export.stages import INPUTS_FILE, Stage, StageError, run_stages
from hydra_edge.errors import ConfigError


class Chain:
    """Three stages in a row over two files: upper case, then joined with a note, then length."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.text, self.note = folder / "text", folder / "note"
        self.text.write_text("abc")
        self.note.write_text("note")
        self.said: list[str] = []
        self.parameters = {"sign": "!"}
        self.on_join: Callable[[Path], None] = lambda _folder: None

    def stages(self) -> list[Stage]:
        def upper(out: Path) -> None:
            (out / "upper").write_text(self.text.read_text().upper())

        def join(out: Path) -> None:
            (out / "joined").write_text("half")
            self.on_join(out)
            whole = (self.work / "upper" / "upper").read_text() + self.note.read_text()
            (out / "joined").write_text(whole + str(self.parameters["sign"]))

        def measure(out: Path) -> None:
            (out / "length").write_text(str(len((self.work / "join" / "joined").read_text())))

        return [
            Stage("upper", upper, ("upper",), lambda: [self.text]),
            Stage(
                "join", join, ("joined",), lambda: [self.note], ("upper",), dict(self.parameters)
            ),
            Stage("measure", measure, ("length",), after=("join",)),
        ]

    def run(self, *only: str) -> list[str]:
        self.said = []
        return run_stages(self.stages(), self.work, only=only, say=self.said.append)

    def joined(self) -> str:
        return (self.work / "join" / "joined").read_text()


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_stages_run_once_and_say_that_they_are_skipped(chain: Chain) -> None:
    assert chain.run() == ["upper", "join", "measure"]
    assert chain.joined() == "ABCnote!"
    assert chain.run() == []
    assert chain.said == [
        f"{name}: skipped, its inputs are unchanged and its outputs are there"
        for name in ("upper", "join", "measure")
    ]


def test_changed_file_reruns_its_stage_and_those_behind_it(chain: Chain) -> None:
    chain.run()
    chain.note.write_text("longer note")
    assert chain.run() == ["join", "measure"]
    chain.text.write_text("abcd")
    assert chain.run() == ["upper", "join", "measure"]
    assert chain.said[0] == "upper: runs, for other files"
    assert chain.said[1] == "join: runs, for other outputs of earlier stages"


def test_stage_behind_one_that_made_the_same_again_is_skipped(chain: Chain) -> None:
    chain.run()
    chain.text.write_text("ABC")  # other bytes, the same upper case
    assert chain.run() == ["upper"]
    chain.note.write_text("etno")  # another text of the same length
    assert chain.run() == ["join", "measure"]


def test_file_moved_or_touched_is_the_same_input(chain: Chain, tmp_path: Path) -> None:
    chain.run()
    (tmp_path / "elsewhere").mkdir()
    chain.text = Path(shutil.move(chain.text, tmp_path / "elsewhere" / "text"))
    assert chain.run() == []


def test_changed_parameter_or_version_reruns_from_there(chain: Chain) -> None:
    chain.run()
    chain.parameters["sign"] = "?"
    assert chain.run() == ["join", "measure"]
    stages = [replace(s, version=2) if s.name == "join" else s for s in chain.stages()]
    assert run_stages(stages, chain.work, say=chain.said.append) == ["join"]


def test_lost_output_is_made_again(chain: Chain) -> None:
    chain.run()
    (chain.work / "join" / "joined").unlink()
    assert chain.run() == ["join"]
    assert "join: runs, for it has lost joined" in chain.said
    (chain.work / "upper" / INPUTS_FILE).write_text("{")
    assert chain.run() == ["upper"]


def test_inputs_name_every_file_and_output_by_its_sha256_and_no_folder(chain: Chain) -> None:
    chain.run()
    inputs = json.loads((chain.work / "join" / INPUTS_FILE).read_text())
    assert inputs["files"] == [{"name": "note", "sha256": sha256_of(chain.note)}]
    made = sha256_of(chain.work / "upper" / "upper")
    assert inputs["stages"] == {"upper": {"upper": made}}
    assert inputs["parameters"] == {"sign": "!"}
    assert set(inputs["tool"]) == {"hydra-edge", "stage"}
    assert str(chain.folder) not in json.dumps(inputs)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_stage_stopped_half_way_leaves_the_last_good_outputs(chain: Chain, stop: type) -> None:
    def stopped(_out: Path) -> None:
        raise stop("stopped")

    chain.run()
    chain.note.write_text("newer")
    chain.on_join = stopped
    with pytest.raises(stop, match="stopped"):
        chain.run()
    assert chain.joined() == "ABCnote!"
    chain.on_join = lambda _out: None
    assert chain.run() == ["join", "measure"]
    assert chain.joined() == "ABCnewer!"
    assert sorted(p.name for p in chain.work.iterdir()) == [".lock", "join", "measure", "upper"]


def test_move_stopped_half_way_is_undone(chain: Chain) -> None:
    chain.run()
    # As if the process had died between moving the old outputs away and the new ones in.
    (chain.work / "join").rename(chain.work / ".join.old")
    (chain.work / ".join.part").mkdir()
    assert chain.run() == []
    assert chain.joined() == "ABCnote!"


def test_stage_that_leaves_no_output_is_refused(chain: Chain) -> None:
    stages = [replace(chain.stages()[0], run=lambda _out: None)]
    with pytest.raises(StageError, match="Stage upper failed: it left no upper"):
        run_stages(stages, chain.work, say=chain.said.append)
    assert not (chain.work / "upper").exists()


def test_only_runs_no_other_stage(chain: Chain) -> None:
    with pytest.raises(ConfigError, match="Stage join cannot run: found no upper"):
        chain.run("join")
    chain.run()
    chain.text.write_text("other")
    chain.note.write_text("other")
    assert chain.run("join") == ["join"]
    assert chain.joined() == "ABCother!"
    assert chain.said[0] == "upper: left as it is, made with other files"
    assert chain.said[2] == "measure: left as it is, made with other outputs of earlier stages"


def test_stage_left_out_needs_nothing_installed(chain: Chain) -> None:
    chain.run()
    chain.text.unlink()  # an encoder's weights, say
    assert chain.run("measure") == []
    assert chain.said[0] == "upper: left as it is"


def test_stage_left_out_says_that_it_was_made_otherwise(chain: Chain) -> None:
    chain.run()
    chain.parameters["sign"] = "?"
    chain.note.write_text("other")
    assert chain.run("measure") == []
    assert chain.said[:2] == [
        "upper: left as it is", "join: left as it is, made with other files and other parameters"
    ]  # fmt: skip
    chain.note.unlink()
    chain.note.write_text("note")
    chain.run("measure")
    assert chain.said[1] == "join: left as it is, made with other parameters"


def test_only_that_names_no_stage_lists_those_there_are(chain: Chain) -> None:
    with pytest.raises(ConfigError, match="got pakc; expected some of upper, join, measure"):
        chain.run("pakc")


def test_second_build_in_the_same_folder_is_refused(chain: Chain) -> None:
    chain.work.mkdir()
    with (
        FileLock(chain.work / ".lock"),
        pytest.raises(ConfigError, match="another build is at work"),
    ):
        chain.run()
    assert chain.run()


def test_delivery_is_made_while_no_other_build_may_work(chain: Chain) -> None:
    def deliver() -> None:
        with pytest.raises(ConfigError, match="another build is at work"):
            chain.run()
        chain.said.append("delivered")

    run_stages(chain.stages(), chain.work, say=chain.said.append, deliver=deliver)
    assert chain.said[-1] == "delivered"


def test_work_that_is_no_folder_is_refused(chain: Chain) -> None:
    chain.work.write_text("a file")
    with pytest.raises(ConfigError, match=r"Cannot work in .*; expected a folder"):
        chain.run()


def test_what_a_stage_adds_to_its_own_input_does_not_rerun_it(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("")

    def ask(out: Path) -> None:
        cache.write_text(cache.read_text() + "answer;")
        (out / "answers").write_text(cache.read_text())

    stage = Stage("ask", ask, ("answers",), grown=lambda: {"cache": cache.read_text()})
    work, said = tmp_path / "work", list[str]()
    assert run_stages([stage], work, say=said.append) == ["ask"]
    assert run_stages([stage], work, say=said.append) == []
    cache.write_text(cache.read_text() + "of another run;")
    assert run_stages([stage], work, say=said.append) == ["ask"]
    assert said[-1] == "ask: runs, for another state of what it gathers"


def test_stage_with_open_ends_runs_again_until_they_are_done(tmp_path: Path) -> None:
    left = ["two", "one"]

    def work_off(out: Path) -> None:
        left.pop()
        (out / "done").write_text("x")

    stage = Stage(
        "work", work_off, ("done",), open_ends=lambda _out: "for some is left" if left else ""
    )
    said: list[str] = []
    ran = [run_stages([stage], tmp_path / "work", say=said.append) for _ in range(3)]
    assert ran == [["work"], ["work"], []]
    assert said[1] == "work: runs, for some is left"
