"""HYDRA as published, in torch: a tiny random BERT stands in for the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from progress import quiet
from tiny_bert import word_pieces, write_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from torch import nn

from bench.published import Published
from export.cache import CachedLLM
from export.data import UserHistory
from export.published.build import Plan, build, load_encoders
from export.published.card import CARD_FILE, read_card
from export.published.labels import Allowance, Labelled, Pair
from export.published.model import CrossEncoder, Heads
from export.published.train import NEW_USER, Recipe, fit_head, train_base
from hydra_edge.errors import BackendError, BundleError, BundleHashError, ConfigError, ShapeError
from hydra_edge.prompt import Prompt
from hydra_edge.types import Record

pytestmark = pytest.mark.export

WIDTH = 32
COLOURS = ("amber", "blue", "crimson", "dun")
PLACES = ("harbour", "meadow", "furnace", "library", "bridge", "tower")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *PLACES, "walk", "to", "the", "title",
         "##s", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")  # fmt: skip
LLM = "scripted"
FAST = Recipe(learning_rate=3e-3, batch=32, epochs=12, dropout=0.0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model folder: BERT of two layers, random weights, a vocabulary of thirty words."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_model(folder, WORDS, width=WIDTH)
    word_pieces(WORDS).save(str(folder / "tokenizer.json"))
    return folder


def pairs_of(user: str, n: int, *, seed: int) -> Labelled:
    """Make pairs whose label is whether the second text names the colour amber."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        colour, a, b = COLOURS[rng.integers(4)], *(PLACES[j] for j in rng.integers(6, size=2))
        pairs.append(Pair(f"walk to the {a}", f"the {b} {colour}", int(colour == "amber"),
                          f"{user}-{i}"))  # fmt: skip
    return Labelled(tuple(pairs), 0, 0)


def arrays_of(labelled: Labelled, encoder: CrossEncoder) -> tuple[np.ndarray, np.ndarray]:
    vectors = encoder.encode([(p.first, p.second) for p in labelled.pairs])
    return vectors, np.array([p.label for p in labelled.pairs])


def state_of(encoder: CrossEncoder) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in encoder.model.state_dict().items()}


def write(path: Path, users: int, n: int, task: str = "paper_title") -> Path:
    rows = [
        {"user": f"u{u}", "id": f"u{u}-{i}", "seq": i, "time": None, "task": task,
         "input": f"walk to the {PLACES[(i + u) % 6]} {i}", "output": f"{COLOURS[i % 4]} title {i}"}
        for u in range(users) for i in range(n)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def echo(prompt: Prompt, n: int) -> list[str]:
    shown = [shot.output for shot in reversed(prompt.shots)] or ["title"]
    return [shown[i % len(shown)] for i in range(n)]


# The model -----------------------------------------------------------------------------------


def test_pair_is_joined_by_the_tokenizers_own_separators(source: Path) -> None:
    (tokens,) = CrossEncoder.load(source, 64).tokenize([("amber walk", "the bridge")])
    assert [WORDS[i] for i in tokens.ids] == [
        "[CLS]", "amber", "walk", "[SEP]", "the", "bridge", "[SEP]",
    ]  # fmt: skip
    assert tokens.types == (0, 0, 0, 0, 1, 1, 1)


def test_long_pair_is_cut_at_the_end_of_its_longer_text(source: Path) -> None:
    (tokens,) = CrossEncoder.load(source, 16).tokenize([("walk " * 90, "amber title")])
    words = [WORDS[i] for i in tokens.ids]
    assert len(words) == 16
    assert words[-3:] == ["amber", "title", "[SEP]"]


def test_vectors_are_the_models_cls_whatever_is_encoded_beside_them(source: Path) -> None:
    encoder = CrossEncoder.load(source, 64)
    pairs = [("walk " * k, "amber " * (k % 5)) for k in range(1, 24)]
    together = encoder.encode(pairs)
    for pair, vector in zip(pairs, together, strict=True):
        (tokens,) = encoder.tokenize([pair])
        with torch.inference_mode():
            out = encoder.model(
                input_ids=torch.tensor([tokens.ids]), token_type_ids=torch.tensor([tokens.types])
            )
        np.testing.assert_allclose(vector, out.last_hidden_state[0, 0].numpy(), atol=1e-5)
    assert encoder.encode([]).shape == (0, WIDTH)


def test_encoding_is_deterministic_even_right_after_training(source: Path) -> None:
    encoder = CrossEncoder.load(source, 64)
    pairs = [("walk to the bridge", "amber")] * 3
    expected = encoder.encode(pairs)
    encoder.model.train()  # as a trainer leaves it: dropout would make these differ
    np.testing.assert_array_equal(encoder.encode(pairs), expected)
    np.testing.assert_array_equal(expected[0], expected[1])


@pytest.mark.parametrize("users", [1, 3])
def test_head_in_numpy_equals_a_torch_module_without_dropout(users: int) -> None:
    heads = Heads(users, WIDTH, 0.5)
    vectors = torch.randn(7, WIDTH)
    for user in range(users):
        inner, outer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        with torch.no_grad():
            inner.weight.copy_(heads.inner[user])
            inner.bias.copy_(heads.inner_bias[user])
            outer.weight.copy_(heads.outer[user])
            outer.bias.copy_(heads.outer_bias[user])
            module = nn.Sequential(inner, nn.Tanh(), outer)
            expected = torch.softmax(module(vectors), dim=1)[:, 1].numpy()
            stacked = heads.eval()(vectors, torch.full((7,), user))
        found = heads.head(user)
        np.testing.assert_allclose(found.probability(vectors.numpy()), expected, atol=1e-6)
        np.testing.assert_allclose(torch.softmax(stacked, 1)[:, 1].numpy(), expected, atol=1e-6)
        assert found.parameters == sum(p.numel() for p in module.parameters())


def test_heads_start_within_the_bound_of_their_real_fan_in() -> None:
    heads = Heads(5, WIDTH, 0.1)
    bound = 1 / np.sqrt(WIDTH)
    for parameter in heads.parameters():
        assert 0.7 * bound < parameter.abs().max().item() <= bound


# Training --------------------------------------------------------------------------------------


def test_recipe_is_the_papers_and_a_new_user_gets_as_many_steps() -> None:
    recipe = Recipe()
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch, recipe.epochs) == (
        2e-5, 0.01, 64, 2,
    )  # fmt: skip
    assert (recipe.steps(640), recipe.steps(65), recipe.steps(0)) == (20, 4, 0)
    assert NEW_USER.steps(40) == 140
    assert NEW_USER.steps(64 * 100) == 200


def test_learnable_signal_is_learned_by_encoder_and_new_users_head(source: Path) -> None:
    users = [pairs_of(f"u{u}", 60, seed=u) for u in range(3)]
    trained = train_base(source, 64, users, FAST, seed=0)
    assert trained.loss_last < 0.3 * trained.loss_first
    vectors, labels = arrays_of(pairs_of("new", 60, seed=9), trained.encoder)
    head = fit_head(vectors, labels, replace(FAST, least_steps=60), seed=0)
    unseen, truth = arrays_of(pairs_of("new", 100, seed=10), trained.encoder)
    assert np.mean((head.probability(unseen) > 0.5) == truth) > 0.95


def test_all_parameters_of_the_encoder_are_trained_and_the_source_is_not(source: Path) -> None:
    before = (source / "model.safetensors").read_bytes()
    first = state_of(CrossEncoder.load(source, 64))
    trained = train_base(source, 64, [pairs_of("u", 64, seed=0)], FAST, seed=0)
    after = state_of(trained.encoder)
    assert [n for n in first if np.array_equal(first[n], after[n])] == []
    assert (source / "model.safetensors").read_bytes() == before


def test_training_equals_a_plain_loop_over_whole_batches(source: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (source / "config.json").write_text(json.dumps(config))
    users = [pairs_of(f"u{u}", 20, seed=u) for u in range(2)]
    recipe = Recipe(learning_rate=1e-3, batch=40, epochs=4, dropout=0.0)
    trained = train_base(source, 64, users, recipe, seed=3)

    encoder = CrossEncoder.load(source, 64)
    pairs = [(p, u) for u, user in enumerate(users) for p in user.pairs]
    tokens = encoder.tokenize([(p.first, p.second) for p, _ in pairs])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        heads = Heads(2, WIDTH, 0.0)
    everything = [*encoder.model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(everything, lr=1e-3, weight_decay=0.01)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        logits = heads(encoder.forward(tokens), torch.tensor([u for _, u in pairs]))
        loss = nn.functional.cross_entropy(logits, torch.tensor([p.label for p, _ in pairs]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert trained.steps == 4
    assert trained.loss_first == pytest.approx(losses[0], abs=1e-5)
    assert trained.loss_last == pytest.approx(losses[-1], abs=1e-3)


def test_training_is_deterministic_and_leaves_the_global_state_alone(source: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    users = [pairs_of("u", 30, seed=0)]
    one = state_of(train_base(source, 64, users, Recipe(), seed=1).encoder)
    vectors, labels = arrays_of(users[0], CrossEncoder.load(source, 64))
    heads = [fit_head(vectors, labels, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    two = state_of(train_base(source, 64, users, Recipe(), seed=1).encoder)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
    np.testing.assert_array_equal(heads[0].inner, heads[1].inner)
    assert not np.array_equal(heads[0].inner, heads[2].inner)


def test_training_without_any_pair_says_so(source: Path) -> None:
    with pytest.raises(ShapeError, match="got no pair"):
        train_base(source, 64, [Labelled((), 0, 0)], Recipe(), seed=0)


def test_head_without_any_pair_is_the_fresh_one_and_mismatched_labels_are_refused() -> None:
    none = np.zeros((0, WIDTH), np.float32)
    fresh = fit_head(none, np.zeros(0, np.int64), seed=4)
    some = np.ones((8, WIDTH), np.float32)
    untrained = fit_head(some, np.ones(8, np.int64), Recipe(epochs=0), seed=4)
    np.testing.assert_array_equal(fresh.inner, untrained.inner)
    with pytest.raises(ShapeError, match=r"got vectors \(8, 32\) and labels \(7,\)"):
        fit_head(some, np.ones(7, np.int64), seed=4)


# From files to encoders and a new user -----------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path, source: Path, scripted: Callable[..., object]) -> Path:
    """Encoders of one task, trained on answers that are in ``cache.jsonl`` afterwards."""
    plan = Plan(users=3, allowance=Allowance(20, 2), max_tokens=32)
    llm = CachedLLM(scripted(echo), tmp_path / "cache.jsonl")
    data = write(tmp_path / "some.train.jsonl", 4, 14)
    build([data], tmp_path / "out", llm, plan, source=source, progress=quiet)
    return tmp_path / "out" / "paper_title"


def test_built_folder_says_what_it_was_trained_on_and_holds_no_pickle(made: Path) -> None:
    card = read_card(made)
    assert {path.name for path in made.iterdir()} == {*card.files, CARD_FILE}
    assert all(path.suffix in {".json", ".safetensors"} for path in made.iterdir())
    assert (card.task, card.users, card.max_tokens, card.llm) == ("paper_title", 3, 32, LLM)
    assert list(card.trained_on) == ["some.train.jsonl"]
    for figures in card.roles.values():
        assert 0 < figures["positive"] < 1
        assert figures["steps"] == Recipe().steps(figures["pairs"])
    assert card.roles["reranker"]["llm_calls"] == card.roles["reranker"]["pairs"] <= 60
    assert card.roles["adapter"]["llm_calls"] == 3 * 2 * 8
    assert card.roles["adapter"]["pairs"] == 3 * 2 * 9
    assert [p.name for p in made.parent.iterdir()] == [made.name]


def test_loaded_encoders_are_those_that_were_trained(made: Path) -> None:
    encoders = load_encoders(made)
    for role, encoder in encoders.items():
        stored = load_file(made / f"{role}.safetensors")
        for name, value in encoder.model.state_dict().items():
            assert torch.equal(value, stored[name])
    pair = [("walk", "amber")]
    assert not np.array_equal(encoders["reranker"].encode(pair), encoders["adapter"].encode(pair))


def test_same_answers_train_the_same_bytes_in_a_replay(
    made: Path, tmp_path: Path, source: Path
) -> None:
    plan = Plan(users=3, allowance=Allowance(20, 2), max_tokens=32)
    replay = CachedLLM(None, tmp_path / "cache.jsonl", name=LLM)
    data = tmp_path / "some.train.jsonl"
    (card,) = build([data], tmp_path / "again", replay, plan, source=source, progress=quiet)
    assert card.files == read_card(made).files
    more = replace(plan, users=4)
    with pytest.raises(BackendError, match="run once with the model itself"):
        build([data], tmp_path / "more", replay, more, source=source, progress=quiet)
    assert not (tmp_path / "more" / "paper_title").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "adapter.safetensors"])
def test_changed_file_is_refused_before_it_is_parsed(made: Path, name: str) -> None:
    (made / name).write_bytes(b"{" + (made / name).read_bytes())
    with pytest.raises(BundleHashError, match=f"{name}: got sha256"):
        load_encoders(made)


def test_source_that_is_no_model_is_refused_with_what_is_missing(source: Path) -> None:
    weights = load_file(source / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    save_file({n: v for n, v in weights.items() if n != name}, source / "model.safetensors")
    with pytest.raises(BundleError, match=r"(?s)Missing key.*layer\.1\.output\.dense\.weight"):
        CrossEncoder.load(source, 64)
    save_file({**weights, name: weights[name] * np.nan}, source / "model.safetensors")
    with pytest.raises(BundleError, match="not finite"):
        CrossEncoder.load(source, 64)


def test_build_refuses_unknown_tasks_short_histories_and_foreign_folders(
    tmp_path: Path, source: Path, scripted: Callable[..., object]
) -> None:
    llm, data = scripted(echo), write(tmp_path / "a.jsonl", 2, 14)
    out = tmp_path / "out"

    def run(path: Path, **options: object) -> None:
        build([path], out, llm, Plan(), source=source, progress=quiet, **options)

    with pytest.raises(ConfigError, match="the data has paper_title"):
        run(data, only=["movie_tag"])
    with pytest.raises(ConfigError, match="Nobody of paper_title has 12 records"):
        run(write(tmp_path / "short.jsonl", 2, 5))
    (out / "paper_title").mkdir(parents=True)
    (out / "paper_title" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is in the way"):
        run(data)
    assert (out / "paper_title" / "thesis.txt").read_text() == "mine"
    assert llm.prompts == []


def test_fitting_a_new_user_changes_their_heads_only(
    made: Path, scripted: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.case import Subject
    from bench.published import OurCost
    from hydra_edge.tasks import BUILTIN

    ours = OurCost(0.0, 0.0, 1, 1)  # needs a device's engine, and is measured elsewhere
    monkeypatch.setattr("bench.published.our_cost", lambda _subject: ours)
    records = tuple(
        Record(f"walk to the {PLACES[i % 6]} {i}", f"{COLOURS[i % 4]} title", "paper_title",
               f"new-{i}", float(i))
        for i in range(16)
    )  # fmt: skip
    encoders = load_encoders(made)
    before = {role: state_of(encoder) for role, encoder in encoders.items()}
    method = Published(lambda _task: encoders, fit_head, Allowance(20, 2), 0)
    subject = Subject(
        UserHistory("new", "paper_title", records), None,
        BUILTIN["paper_title"], scripted(echo), 12, 0,
    )  # fmt: skip
    fitted = method.fitted(subject)
    for role, encoder in encoders.items():
        for name, value in state_of(encoder).items():
            np.testing.assert_array_equal(value, before[role][name])
        fresh = fit_head(
            np.zeros((0, WIDTH), np.float32), np.zeros(0, np.int64),
            seed=method._seed_of(subject, role),
        )  # fmt: skip
        head = fitted.heads[role]
        moved = np.abs(head.inner - fresh.inner).max()
        assert 0 < moved < 140 * 1.1 * 2e-5, "the recipe's steps, from this user's own start"
        assert not np.array_equal(head.outer, fresh.outer)
    size = 4 * (WIDTH * WIDTH + WIDTH + 2 * WIDTH + 2)
    assert fitted.cost.size_bytes == 2 * size
    assert 0 < fitted.cost.record_calls <= 20
    assert fitted.cost.pool_calls == 16
