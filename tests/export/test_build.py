"""The whole build on a tiny encoder and a scripted LLM: what it makes, and when it makes it again.

Training itself is a stand-in here; that of the shipped base has tests of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from tiny_bert import word_pieces, write_model

pytest.importorskip("torch")
pytest.importorskip("optimum")

import onnx
from onnx import numpy_helper

import export.label
from bench.guard import BenchError, check_not_trained_on
from export.agreement import LIMITS as AGREEMENT
from export.build import build
from export.cache import CachedLLM, answers_file, pack_answers
from export.data import UserHistory
from export.encoder import MAX_WEIGHT
from export.labels import PoolLabel, read_pools, read_records
from export.mine import LlmPlan, Plan
from export.pack import neutral_maps
from export.parity import LIMITS, Limit, limits
from export.shown import SHOWN_FILE
from export.stages import INPUTS_FILE
from export.workshop import Settings
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.encoder import Encoder, TextEncoder
from hydra_edge.errors import BundleError, HydraError
from hydra_edge.features import feature_names
from hydra_edge.prompt import Prompt
from hydra_edge.types import JsonDict, Progress, Role

pytestmark = pytest.mark.export

STAGES = ("onnx", "mine", "label", "train", "agree", "pack")
TOPICS = ("parser", "speech", "vision", "music")
PLACES = ("harbour", "bridge", "garden", "station", "market", "tower")
FILLERS = ("a", "study", "on", "text", "of", "the", "in", "##s", *"0123456789")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOPICS, *PLACES, *FILLERS)
WIDTH = 32
# Random weights of two layers bear int8 worse than trained ones; all must still be measured.
LOOSE, LOOSE_AGREEMENT = (
    tuple(Limit(limit.figure, -1.0, 1e3, limit.why) for limit in strict)
    for strict in (LIMITS, AGREEMENT)
)


def write(path: Path, users: Iterable[str], n: int = 14, task: str = "paper_title") -> Path:
    rows = []
    for u, user in enumerate(users):
        for i in range(n):
            topic, place = TOPICS[(i + u) % 4], PLACES[(i * 5 + u) % 6]
            rows.append(
                {"user": user, "id": f"{task}-{user}-{i}", "seq": i, "time": None, "task": task,
                 "input": f"text on {topic} in the {place} {i}", "output": f"a study of {topic}s"}
            )  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny model of random weights, in the format of the real one."""
    folder = tmp_path_factory.mktemp("source")
    write_model(folder, WORDS, width=WIDTH)
    word_pieces(WORDS).save(str(folder / "tokenizer.json"))
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    )
    return folder


@dataclass(frozen=True, eq=False)
class Made:
    """What the stand-in for training gives."""

    arrays: dict[str, np.ndarray]
    features: dict[Role, tuple[str, ...]]
    quality: JsonDict
    closed_sets: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Train:
    """A stand-in: the first base's reranker and a neutral adapter; remembers what it was given."""

    def __init__(self) -> None:
        self.users: dict[str, list[str]] = {}
        self.pools: list[PoolLabel] = []
        self.seed = -1

    def __call__(
        self, *, bundle: Bundle, encoder: TextEncoder, users_by_task: dict[str, list[UserHistory]],
        everyone: dict[str, list[UserHistory]],
        pools: list[PoolLabel], seed: int, report: Progress,
    ) -> Made:  # fmt: skip
        self.users = {task: [u.user for u in users] for task, users in users_by_task.items()}
        self.pools, self.seed = list(pools), seed
        encoder.encode([r.input for users in users_by_task.values() for u in users
                        for r in u.records])  # fmt: skip
        report("train", 1, 1)
        features = {role: feature_names(role) for role in get_args(Role)}
        arrays = {**neutral_maps(features), **bundle.maps}
        return Made(arrays, features, {"adapter": {"pools": len(self.pools)}})


class Site:
    """One build that can be run again, with what there is to change about it."""

    def __init__(self, tmp_path: Path, source: Path, llm: object) -> None:
        self.folder = tmp_path
        self.data = [
            write(tmp_path / f"{task}.train.jsonl", [f"{task[0]}{i}" for i in range(7)], task=task)
            for task in ("news_headline", "paper_title")
        ]
        # Fewer records than parity is measured on: they show how large channels become.
        short = write(tmp_path / "short.train.jsonl", ["s1", "s2"], 5)
        self.settings = Settings(
            (*self.data, short), tmp_path / "base", tmp_path / "work", tmp_path / "answers",
            Plan(
                reranker_users=5, reranker_queries=6,
                llms=(LlmPlan("small", 4, 2, 2, record_queries=1, records=2),),
            ),
            source=source, max_tokens=32, limits=LOOSE, agreement=LOOSE_AGREEMENT,
        )  # fmt: skip
        self.llm = llm
        self.make_train: Callable[[], object] = Train
        self.train = Train()
        self.said: list[str] = []
        self.bars: set[str] = set()

    def open_llm(self, spec: str, replay: bool) -> CachedLLM:
        path = answers_file(self.settings.answers, spec)
        return CachedLLM(None if replay else self.llm, path, name="scripted")

    def run(self, *only: str, **changes: object) -> list[str]:
        self.said, self.train = [], self.make_train()
        return build(
            replace(self.settings, **changes),
            progress=lambda stage, _done, _total: self.bars.add(stage),
            say=self.said.append, only=only, open_llm=self.open_llm, train=self.train,
        )  # fmt: skip

    def asked(self) -> int:
        return len(self.llm.prompts)

    def inputs(self, stage: str) -> JsonDict:
        loaded: JsonDict = json.loads((self.settings.work / stage / INPUTS_FILE).read_text())
        return loaded


def answer(prompt: Prompt, n: int) -> list[str]:
    topic = next(t for t in TOPICS if t in prompt.query)
    return [f"a study of {topic}s", "untitled", f"{topic} in the market", "on things"][:n]


@pytest.fixture
def site(tmp_path: Path, source: Path, scripted: Callable[..., object]) -> Site:
    return Site(tmp_path, source, scripted(answer))


def test_build_end_to_end_makes_a_bundle_and_the_second_time_nothing(site: Site) -> None:
    assert site.run() == list(STAGES)
    made = load_bundle(site.settings.out)
    assert made.manifest.dim == WIDTH
    assert made.features("adapter") == feature_names("adapter")
    vectors = Encoder(made).encode(["text on music", "a study"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert np.any(made.array("reranker.prior.text.mean") != 0), "mined, not neutral"
    # Two tasks of four users with two queries each, with records and without; and two single
    # records of one query each.
    asked = site.asked()
    assert asked == 2 * 4 * 2 * 2 + 2 * 2
    assert len(site.train.pools) == 16
    assert len(read_records(site.settings.work / "label" / "records.jsonl.gz")) == 4
    quality = made.manifest.quality
    assert quality["adapter"] == {"pools": 16}
    assert quality["llms"]["small"] == {
        "name": "scripted", "pools_planned": 16, "pools": 16, "records_planned": 4, "records": 4,
        "unanswered": 0,
    }  # fmt: skip
    assert quality["plan"]["seed"] == 0
    assert {"reranker labels", "prompts", "small: pools", "train"} <= site.bars
    assert {"agreement: float32", "agreement: reranker", "agreement: adapter"} <= site.bars
    agreement = made.manifest.parity["agreement"]
    assert agreement["limits"] == limits(LOOSE_AGREEMENT)
    assert (agreement["seed"], agreement["users"], agreement["adapter_queries"]) == (0, 8, 16)
    sample = json.loads((site.settings.work / "agree" / "sample.json").read_text())
    assert {task: len(users) for task, users in sample.items()} == {
        "news_headline": 4, "paper_title": 4,
    }  # fmt: skip
    before = {path: path.read_bytes() for path in site.settings.out.iterdir()}
    assert site.run() == []
    assert site.said[-1] == f"{site.settings.out} is up to date: base {made.base_id[:12]}"
    assert site.asked() == asked
    assert {path: path.read_bytes() for path in site.settings.out.iterdir()} == before

    # A replay elsewhere, from the packed answers alone, gives the same bytes.
    pack_answers(answers_file(site.settings.answers, "small"))
    assert site.run() == [], "packing answers changes none of them"
    other = {"out": site.folder / "again", "work": site.folder / "again-work", "replay": True}
    site.run(**other)
    assert site.asked() == asked
    for path, content in before.items():
        assert (site.folder / "again" / path.name).read_bytes() == content, path.name


def test_replay_where_other_records_would_be_chosen_replays_every_pool(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run()
    real = export.label._best
    monkeypatch.setattr(export.label, "_best", lambda *args: [real(*args)[0][::-1]])
    elsewhere = {"out": site.folder / "again", "work": site.folder / "again-work", "replay": True}
    site.run(**elsewhere)
    assert len(site.train.pools) == 16
    (site.settings.answers / SHOWN_FILE).unlink()
    with pytest.raises(BundleError, match="found no answered pool"):
        site.run(**elsewhere)


def test_build_reruns_what_is_behind_a_change_and_no_more(site: Site) -> None:
    site.run()
    asked = site.asked()

    def plan(**changes: object) -> Plan:
        return replace(site.settings.plan, **changes)

    # More pools: mined anew, but the graph is left alone, and only the new ones are asked for.
    (llm,) = site.settings.plan.llms
    more = plan(llms=(replace(llm, queries=3),))
    assert site.run(plan=more) == ["mine", "label", "train", "agree", "pack"]
    assert site.asked() == asked + 8 * 2
    assert len(site.train.pools) == 24
    # Answers that came from elsewhere change no pool of the plan: labelled, and no further.
    path = answers_file(site.settings.answers, "small")
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"k":"another","g":true,"c":[["x",1,null]]}\n')
    assert site.run(plan=more) == ["label"]
    # A lost bundle is put back, a lost memory of vectors costs nothing but time.
    first = load_bundle(site.settings.out).base_id
    (site.settings.out / "manifest.json").unlink()
    for left in list(site.settings.out.iterdir()):
        left.unlink()
    (site.settings.work / "vectors.npz").unlink()
    assert site.run(plan=more) == []
    assert load_bundle(site.settings.out).base_id == first
    # Other data: everything.
    write(site.data[0], [f"n{i}" for i in range(8)], task="news_headline")
    assert site.run(plan=more)[:2] == ["onnx", "mine"]
    assert len(site.train.users["news_headline"]) == 8


def test_build_states_its_inputs_by_fingerprint_and_the_guard_knows_them(site: Site) -> None:
    site.run()
    bundle = load_bundle(site.settings.out)
    assert set(bundle.manifest.quality["trained_on"]) == {p.name for p in site.settings.files}
    renamed = site.folder / "renamed.jsonl"
    renamed.write_bytes(site.data[0].read_bytes())
    with pytest.raises(BenchError, match=r"cannot measure base .*: trained on it"):
        check_not_trained_on(bundle, [renamed])
    check_not_trained_on(bundle, [write(site.folder / "other.dev.jsonl", ["stranger"])])
    for stage in STAGES:
        assert str(site.folder) not in json.dumps(site.inputs(stage))
    assert {f["name"] for f in site.inputs("onnx")["files"]} >= {"model.safetensors"}
    assert set(site.inputs("train")["stages"]) == {"onnx", "mine", "label"}


def test_build_trains_on_the_files_users_with_a_past_and_on_pools_of_theirs(site: Site) -> None:
    site.run(plan=replace(site.settings.plan, seed=3))
    assert site.train.seed == 3
    assert site.train.users == {
        "news_headline": [f"n{i}" for i in range(7)], "paper_title": [f"p{i}" for i in range(7)],
    }  # fmt: skip
    place = {(t, u): i for t, users in site.train.users.items() for i, u in enumerate(users)}
    for pool in site.train.pools:
        assert (pool.task, pool.user) in place
        for shown in pool.shown_ids:
            head, _, index = shown.rpartition("-")
            assert head == f"{pool.task}-{pool.user}"
            assert int(index) < pool.position
    assert read_pools(site.settings.work / "label" / "pools.jsonl.gz") == site.train.pools


def test_build_stopped_while_asking_keeps_the_answers_and_the_last_bundle(site: Site) -> None:
    site.run()
    before = (site.settings.out / "manifest.json").read_bytes()
    asked, (llm,) = site.asked(), site.settings.plan.llms
    more = replace(site.settings.plan, llms=(replace(llm, queries=4),))
    whole = site.llm.answer

    def stops(prompt: Prompt, n: int) -> list[str]:
        if site.asked() > asked + 5:
            raise KeyboardInterrupt
        return whole(prompt, n)

    site.llm.answer = stops
    with pytest.raises(KeyboardInterrupt):
        site.run(plan=more)
    assert (site.settings.out / "manifest.json").read_bytes() == before
    assert len(read_pools(site.settings.work / "label" / "pools.jsonl.gz")) == 16
    # Of the third pool only half is there. Who stops can train on the others; who goes on is
    # asked for the rest only.
    assert site.run(plan=more, replay=True) == ["label", "train", "agree", "pack"]
    assert len(site.train.pools) == 16 + 2
    assert any("14 not answered" in line for line in site.said)
    site.llm.answer = whole
    before_asking = site.asked()
    assert site.run(plan=more) == ["label", "train", "agree", "pack"]
    assert site.asked() == before_asking + 16 * 2 - 5
    assert len(site.train.pools) == 32


def test_build_with_a_missed_limit_leaves_nothing(site: Site) -> None:
    strict = (Limit("int8_cosine_min", 1.5, 2.0, "no graph can"), *LOOSE)
    with pytest.raises(BundleError, match="Parity is missed: int8_cosine_min"):
        site.run(limits=strict)
    assert not site.settings.out.exists()
    assert not (site.settings.work / "onnx").exists()


def spoil(graph: Path) -> None:
    """Replace all quantized weights, embeddings too, by noise that does not saturate."""
    model, rng = onnx.load(graph), np.random.default_rng(0)
    for entry in model.graph.initializer:
        old = numpy_helper.to_array(entry)
        if old.ndim == 2 and old.dtype in (np.int8, np.uint8):
            low = -MAX_WEIGHT if old.dtype == np.int8 else 0
            noise = rng.integers(low, MAX_WEIGHT + 1, old.shape).astype(old.dtype)
            entry.CopyFrom(numpy_helper.from_array(noise, entry.name))
    onnx.save(model, graph)


def test_build_with_noise_for_weights_is_caught_before_anything_is_packed(site: Site) -> None:
    site.run("onnx", "mine", "label", "train")
    assert site.run("agree", agreement=AGREEMENT) == ["agree"]
    assert site.inputs("agree")["stages"].keys() == {"onnx", "label", "train"}
    spoil(site.settings.work / "onnx" / "encoder.onnx")
    with pytest.raises(BundleError, match=r"Parity is missed: .*reranker_kendall = "):
        site.run("agree", "pack", agreement=AGREEMENT)
    assert not site.settings.out.exists()
    assert not (site.settings.work / "pack").exists()


def test_build_says_what_was_learned_of_each_task(site: Site) -> None:
    def figures(baseline: float, shared: float) -> JsonDict:
        return {"utility": {"baseline": baseline, "shared": shared}, "users": 4}

    told = {"paper_title": figures(0.25, 0.5), "text": figures(0.25, 0.5)}

    class Told(Train):
        def __call__(self, **given: object) -> Made:
            return replace(super().__call__(**given), quality={"adapter": told})

    site.make_train = Told
    site.run()
    assert site.said[-3:-1] == [
        "paper_title: utility 0.2500 -> 0.5000, 4 users left out",
        "nothing was learned for: news_headline",
    ]
    assert "is written" in site.said[-1]
    shutil.rmtree(site.settings.work / "train")
    told = {task: figures(0.5, 0.5) for task in ("news_headline", "paper_title")}
    site.run()
    assert "nothing was learned for: news_headline, paper_title" in site.said


def test_build_where_an_llm_answers_a_task_with_blanks_only(site: Site) -> None:
    from functools import partial

    from export.metalearn import Recipe
    from export.train import train_maps

    recipe = Recipe(k=2, steps=3, users=3, queries=6)
    site.make_train = lambda: partial(train_maps, recipe=recipe)
    site.llm.answer = lambda prompt, n: (
        [""] * n if prompt.task.name == "news_headline" else answer(prompt, n)
    )
    assert site.run() == list(STAGES)
    quality = load_bundle(site.settings.out).manifest.quality
    assert set(quality["adapter"]) == set(quality["zero_shot"]) == {"paper_title", "text"}
    assert any(line.startswith("nothing was learned for: news_headline") for line in site.said)


def test_build_states_no_folder_of_a_local_llm(site: Site) -> None:
    (llm,) = site.settings.plan.llms
    here, there = (
        replace(site.settings.plan, llms=(replace(llm, name=f"{folder}/x.gguf"),))
        for folder in ("/home/alice/secret", "/home/alice/other")
    )
    site.run(plan=here)
    manifest = (site.settings.out / "manifest.json").read_text()
    quality = json.loads(manifest)["quality"]
    assert [of["name"] for of in quality["plan"]["llms"]] == list(quality["llms"]) == ["x.gguf"]
    assert "alice" not in manifest
    for stage in STAGES:
        assert "alice" not in json.dumps(site.inputs(stage))
    assert site.run(plan=here) == []
    asked = site.asked()
    assert site.run(plan=there)[:2] == ["mine", "label"], "its answers are kept elsewhere"
    assert site.asked() == 2 * asked


def test_build_of_later_stages_alone_states_what_the_earlier_were_told(site: Site) -> None:
    site.run()
    made = json.loads((site.settings.out / "manifest.json").read_text())["quality"]
    other = Plan(seed=5, llms=(LlmPlan("gemma3"),))
    assert site.run("train", "agree", "pack", plan=other) == ["train", "agree", "pack"]
    assert "mine: left as it is, made with other parameters" in site.said
    assert "onnx: left as it is" in site.said
    stated = json.loads((site.settings.out / "manifest.json").read_text())["quality"]
    assert stated.pop("training_seed") == site.train.seed == 5
    assert stated == made


def test_build_of_stage_train_alone_on_other_files(site: Site) -> None:
    site.run()
    before = load_bundle(site.settings.out).manifest.quality["trained_on"]
    stranger = write(site.folder / "stranger.train.jsonl", ["x0", "x1"])
    for files in ((stranger,), (write(site.folder / "cut.train.jsonl", ["p0"], 12),)):
        with pytest.raises(BundleError, match=r"The plan names .*Run stage mine on these"):
            site.run("train", files=files)
    more = (*site.settings.files, stranger)
    site.run("train", "agree", "pack", files=more)
    assert "mine: left as it is, made with other files" in site.said
    trained = load_bundle(site.settings.out).manifest.quality["trained_on"]
    assert set(trained) == {path.name for path in more}
    # Whoever is asked about is in both, and so is every file that anything rests on.
    both = site.folder / "both.train.jsonl"
    both.write_text("\n".join(path.read_text() for path in site.settings.files))
    site.run("train", "agree", "pack", files=(both,))
    trained = load_bundle(site.settings.out).manifest.quality["trained_on"]
    assert set(trained) == {"both.train.jsonl", *before}
    assert set(before.values()) < set(trained.values())


def test_build_packs_nothing_that_stage_agree_has_not_passed(site: Site) -> None:
    site.run()
    manifest = site.settings.out / "manifest.json"
    packed, other = manifest.read_bytes(), Plan(seed=5, llms=(LlmPlan("gemma3"),))
    site.run("train", plan=other)
    for only in (("pack",), ("onnx", "pack")):
        with pytest.raises(BundleError, match="stage agree compared other outputs of train than"):
            site.run(*only, plan=other)
        (told,) = [line for line in site.said if line.startswith("agree: ")]
        assert told.startswith("agree: left as it is, made with other outputs of earlier stages")
    assert manifest.read_bytes() == packed
    site.run("agree", "pack", plan=other)
    assert manifest.read_bytes() != packed


def test_build_does_not_judge_answers_by_another_record_than_they_are_to(site: Site) -> None:
    site.run()
    file = site.settings.files[-2]
    earlier = {**json.loads(file.read_text().splitlines()[0]), "id": "older", "seq": -1}
    file.write_text(json.dumps(earlier) + "\n" + file.read_text(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"were made when it was in place \d+ of that history"):
        site.run("train")


def test_build_refuses_a_folder_that_is_no_bundle_before_it_works(site: Site) -> None:
    site.settings.out.mkdir()
    (site.settings.out / "letters").write_text("letters")
    with pytest.raises(BundleError, match="is not a bundle"):
        site.run()
    assert not site.settings.work.exists()


def test_build_of_later_stages_alone_says_what_is_missing(site: Site) -> None:
    with pytest.raises(HydraError, match=r"Stage mine cannot run: found no encoder\.onnx"):
        site.run("mine")
    site.run("onnx", "mine")
    assert not site.settings.out.exists()
    assert site.asked() == 0
    assert site.run("label") == ["label"]


def test_build_with_real_training_judges_users_left_out_and_the_bundle_serves(site: Site) -> None:
    from functools import partial

    from export.metalearn import Recipe
    from export.train import train_maps

    recipe = Recipe(k=2, steps=3, users=3, queries=6)
    site.make_train = lambda: partial(train_maps, recipe=recipe)
    site.run()
    bundle = load_bundle(site.settings.out)
    quality = bundle.manifest.quality["adapter"]["paper_title"]
    assert quality["users"] > 0
    assert 0.0 <= quality["utility"]["shared"] <= 1.0
    assert "maps" in quality["utility"], "they were tried"
    if any(figures["maps"] for figures in bundle.manifest.quality["adapter"].values()):
        assert bundle.array("adapter.map.query").shape == (2, WIDTH)
        assert bundle.features("adapter")[-1] == "map_candidate_1"
    else:
        assert "adapter.map.query" not in bundle.maps
        assert bundle.features("adapter") == feature_names("adapter")
    first = (site.settings.out / "manifest.json").read_bytes()
    for stage in ("train", "agree", "pack"):
        shutil.rmtree(site.settings.work / stage)
    site.run()
    assert (site.settings.out / "manifest.json").read_bytes() == first, "the same seed, the same"
