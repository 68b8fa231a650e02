from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.pack import Card, neutral_maps, pack
from hydra_edge.bundle import Bundle, default_bundle_path, load_bundle
from hydra_edge.encoder import (
    TOKEN_BUDGET,
    Encoder,
    TextEncoder,
    plan_batches,
    real_token_share,
    shared_encoder,
)
from hydra_edge.errors import BundleError, ShapeError
from hydra_edge.types import Role

GOLDEN = Path(__file__).parents[1] / "golden" / "encoder.npz"
FEATURES: dict[Role, tuple[str, ...]] = {"reranker": ("a",), "adapter": ("a",)}
TEXTS = [
    "Fix the overflow in the ring buffer.",
    "ok",
    "",
    "The library opens at nine; on Sundays, when the reading room is heated, not before ten.",
    "これは短い文です。",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 8,
    "😀🎉",
    "Fix the ring buffer's overflow",
]


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return Encoder(bundle, threads=1)


def broken(folder: Path, *, graph: bytes | Path, tokenizer: bytes | Path, dim: int = 384) -> Bundle:
    """Pack a base that loads but whose encoder is not one."""
    folder.mkdir()
    for name, content in (("graph", graph), ("tokenizer", tokenizer)):
        data = content if isinstance(content, bytes) else content.read_bytes()
        (folder / name).write_bytes(data)
    return pack(
        folder / "base", encoder=folder / "graph", tokenizer=folder / "tokenizer",
        card=Card(dim, "mean", 128, {}, {}), maps=neutral_maps(FEATURES), features=FEATURES,
    )  # fmt: skip


# --- batches ---


@given(st.lists(st.integers(1, 200), max_size=300), st.integers(1, 2000))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget=budget)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


@given(st.lists(st.integers(2, 128), min_size=1, max_size=300))
def test_batches_waste_little_or_less_than_another_run_costs(lengths: list[int]) -> None:
    for batch in plan_batches(lengths):
        own = [lengths[i] for i in batch]
        padded = len(own) * max(own)
        assert padded - sum(own) <= max(16, 0.15 * padded)


@pytest.mark.parametrize("seed", range(5))
def test_batches_of_mixed_lengths_are_mostly_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(3.4, 0.9, 400).astype(int), 2, 128).tolist()
    assert real_token_share(lengths, plan_batches(lengths)) >= 0.85
    in_order = [np.arange(i, min(i + 16, 400)) for i in range(0, 400, 16)]
    assert real_token_share(lengths, in_order) < 0.6  # what sorting is for


def test_batches_of_equal_lengths_fill_the_budget() -> None:
    batches = plan_batches([64] * 16)
    assert [len(batch) for batch in batches] == [TOKEN_BUDGET // 64] * (16 * 64 // TOKEN_BUDGET)
    assert real_token_share([64] * 16, batches) == 1.0


def test_batches_of_nothing_are_none() -> None:
    assert plan_batches([]) == []
    assert real_token_share([], []) == 1.0


# --- vectors ---


def test_encoder_is_a_text_encoder(encoder: Encoder, bundle: Bundle) -> None:
    assert isinstance(encoder, TextEncoder)
    assert (encoder.dim, encoder.base_id) == (384, bundle.base_id)


def test_encoder_gives_finite_unit_float32_rows(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_encoder_of_no_texts_gives_no_rows(encoder: Encoder) -> None:
    vectors = encoder.encode([])
    assert vectors.shape == (0, 384)
    assert vectors.dtype == np.float32


def test_encoder_matches_the_reference_in_torch(encoder: Encoder) -> None:
    # Made by: python -m export golden --texts tests/golden/encoder.txt --out ....npz
    with np.load(GOLDEN) as golden:
        texts, reference = [str(text) for text in golden["texts"]], golden["vectors"]
    assert texts == GOLDEN.with_suffix(".txt").read_text(encoding="utf-8").split("\n")[:-1]
    cosines = (encoder.encode(texts) * reference).sum(axis=1)
    assert cosines.min() >= 0.985
    assert cosines.mean() >= 0.995


def test_encoder_keeps_the_order_of_the_references_similarities(encoder: Encoder) -> None:
    with np.load(GOLDEN) as golden:
        texts, reference = [str(text) for text in golden["texts"]], golden["vectors"]
    vectors = encoder.encode(texts)
    found, expected = vectors @ vectors.T, reference @ reference.T
    assert np.abs(found - expected).max() <= 0.04
    np.testing.assert_array_equal(found[0].argsort()[-2:], expected[0].argsort()[-2:])


def test_encoder_vector_does_not_depend_on_its_neighbours(encoder: Encoder) -> None:
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    reversed_ = encoder.encode(TEXTS[::-1])[::-1]
    np.testing.assert_allclose(together, reversed_, atol=1e-4)


def test_encoder_padding_does_not_change_a_vector(encoder: Encoder) -> None:
    # 19 and 20 tokens share a batch, so that one of them is padded.
    short, long = "word " * 17, "word " * 18
    assert [len(batch) for batch in plan_batches([19, 20])] == [2]
    assert [len(ids) for ids in encoder.tokenize([short, long])] == [19, 20]
    together = encoder.encode([short, long])
    np.testing.assert_allclose(together[:1], encoder.encode([short]), atol=1e-4)


def test_encoder_equal_texts_get_equal_rows(encoder: Encoder) -> None:
    vectors = encoder.encode(["one", "two", "one", "one"])
    np.testing.assert_array_equal(vectors[[2, 3]], vectors[[0, 0]])
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_encoder_puts_like_texts_nearer(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    similar = vectors @ vectors[0]
    assert similar[1:].argmax() + 1 == TEXTS.index("Fix the ring buffer's overflow")


def test_encoder_reads_only_the_first_tokens(encoder: Encoder) -> None:
    head = "The harbour wall was finished in spring. " * 40
    vectors = encoder.encode([head, head + "Cats and dogs. " * 50_000])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert len(encoder.tokenize([head])[0]) == 128


def test_encoder_skips_a_megabyte_of_white_space(encoder: Encoder) -> None:
    vectors = encoder.encode(["the harbour wall", " \n\t" * 400_000 + "the harbour wall"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000, "\0" * 5000, "\ud800", "ok \udfff ok", "\u200b\u200d", "מזל טוב",
        "\ufeff", "e\u0301" * 3000, "𝔘𝔫𝔦", "[CLS] [SEP] [PAD] [MASK]", "\r\n" * 3000,
    ],
)  # fmt: skip
def test_encoder_takes_any_text(encoder: Encoder, text: str) -> None:
    vector = encoder.encode([text])
    assert vector.shape == (1, 384)
    assert abs(np.linalg.norm(vector) - 1) < 1e-5


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Fix the buffer", True), ("Сегодня хорошая погода", True), ("今日は天気がいい", True),
        ("오늘 날씨가 좋다", True), ("الطقس جميل", True), ("แมวนอน 5 บนโซฟา!", False),
        ("ថ្ងៃនេះ", False), ("😀🎉", False), ("no 😀", True), ("", True),
    ],
)  # fmt: skip
def test_encoder_tells_whose_words_it_knows(encoder: Encoder, text: str, *, known: bool) -> None:
    assert encoder.knows_words_of(text) is known


def test_encoder_reports_progress_up_to_the_distinct_texts(encoder: Encoder) -> None:
    seen: list[tuple[str, int, int]] = []
    texts = [f"number {i} " * (i % 7 + 1) for i in range(60)]
    encoder.encode([*texts, *texts], progress=lambda *step: seen.append(step))
    assert {(stage, total) for stage, _, total in seen} == {("encode", 60)}
    done = [count for _, count, _ in seen]
    assert done == sorted(set(done))
    assert done[-1] == 60


def test_encoder_given_one_text_by_mistake_says_so(encoder: Encoder) -> None:
    with pytest.raises(ShapeError, match="got one text; expected a sequence"):
        encoder.encode("one text")


def test_encoder_used_from_several_threads_gives_the_same(bundle: Bundle) -> None:
    fresh = Encoder(bundle, threads=1)  # all four race to load it
    results: list[np.ndarray | None] = [None] * 4
    barrier = threading.Barrier(4)

    def work(slot: int) -> None:
        barrier.wait()
        results[slot] = fresh.encode(TEXTS)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_encoder_loads_nothing_before_the_first_text() -> None:
    code = (
        "import sys\n"
        "from hydra_edge.bundle import load_bundle\n"
        "from hydra_edge.encoder import Encoder\n"
        "encoder = Encoder(load_bundle())\n"
        "heavy = {'onnxruntime', 'tokenizers', 'torch', 'transformers', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "encoder.encode(['now'])\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['onnxruntime', 'tokenizers']"]
    assert done.stderr == ""


# --- one for all ---


def test_shared_encoder_of_a_base_is_one_and_few_are_kept(bundle: Bundle) -> None:
    one = shared_encoder(bundle, threads=1)
    again = load_bundle()
    assert again is not bundle
    assert shared_encoder(again, threads=1) is one
    assert shared_encoder(bundle, threads=2) is not one
    assert shared_encoder(bundle, threads=1) is one, "one that is asked for is kept"
    kept, ref = shared_encoder(replace(bundle, base_id="another"), threads=1), weakref.ref(one)
    assert kept is not one
    shared_encoder(replace(bundle, base_id="a third"), threads=1)
    del one
    gc.collect()
    assert ref() is None
    assert shared_encoder(replace(bundle, base_id="another"), threads=1) is kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_shared_encoder_is_left_to_the_parent_and_lets_a_forked_child_end() -> None:
    code = (
        "import os, signal, sys\n"
        "from hydra_edge.bundle import load_bundle\n"
        "from hydra_edge.encoder import shared_encoder\n"
        "bundle = load_bundle()\n"
        "shared_encoder(bundle, threads=2).encode(['a'])\n"
        "parents = id(shared_encoder(bundle, threads=2))\n"
        "if (child := os.fork()) == 0:\n"
        "    signal.alarm(30)\n"
        "    mine = shared_encoder(bundle, threads=2)\n"
        "    mine.encode(['a'])\n"
        "    sys.exit(id(mine) == parents)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


# --- bases whose encoder is none ---


def test_encoder_of_a_graph_that_is_none_says_so(tmp_path: Path) -> None:
    tokenizer = default_bundle_path() / "tokenizer.json"
    base = broken(tmp_path / "b", graph=b"no graph at all", tokenizer=tokenizer)
    with pytest.raises(BundleError, match=r"Cannot load .*encoder\.onnx: .*Get the base again"):
        Encoder(base).encode(["a"])


def test_encoder_of_a_tokenizer_that_is_none_says_so(tmp_path: Path) -> None:
    base = broken(tmp_path / "b", graph=b"", tokenizer=b"{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be loaded: "):
        Encoder(base).encode(["a"])


def test_encoder_of_another_width_than_stated_says_so(tmp_path: Path) -> None:
    default = default_bundle_path()
    base = broken(
        tmp_path / "b", graph=default / "encoder.onnx", tokenizer=default / "tokenizer.json", dim=8
    )
    with pytest.raises(BundleError, match=r"gives shape \(1, 3, 384\) for \(1, 3, 8\); .* width 8"):
        Encoder(base).encode(["a"])
