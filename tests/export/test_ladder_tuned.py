"""The ladder with an encoder of its own: tuned on users, judged on others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import ladder_users
import numpy as np
import pytest
from ladder_users import PLACES, SIZE, everyone, material
from progress import quiet
from tiny_bert import write_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from export.data import UserHistory
from export.ladder.report import ALL
from export.ladder.run import climb_tuned
from export.ladder.tuned import CutEncoder, Tuning, tune, worth_of
from export.parity import TorchEncoder
from hydra_edge.bundle import Bundle
from hydra_edge.tasks import find_task
from hydra_edge.types import Record

pytestmark = pytest.mark.export

neutral = ladder_users.neutral


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *PLACES, "what", "is", "at",
         "the", "of", *"0123456789")  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny model of random weights, in the format of the real one."""
    folder = tmp_path_factory.mktemp("source")
    write_model(folder, WORDS, width=384, inner=32, positions=32)
    known = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")
    }
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


def test_cut_encoder_is_the_model_itself(source: Path) -> None:
    texts = ["the harbour", "a b c d e f g h a b c d e f g h a b c d", "tower", ""]
    cut = CutEncoder(source, 16)
    cut.keep(texts, progress=quiet)
    expected = TorchEncoder(source, 16).encode(texts)
    np.testing.assert_allclose(cut.snapshot("x").encode(texts), expected, atol=2e-3)


def by_letter(user: str, seed: int) -> UserHistory:
    """Make a user whose output follows the first letter of an input; the rest says nothing."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(16):
        letter = int(rng.integers(0, 4))
        noise = " ".join(rng.choice(PLACES, 6).tolist())
        records.append(
            Record(f"{'abcd'[letter]} {noise}", PLACES[letter], "movie_tag", id=f"{user}-{i}")
        )
    return UserHistory(user, "movie_tag", tuple(records))


def helped(cut: CutEncoder, users: Sequence[UserHistory]) -> float:
    """Return what the nearest earlier record is worth, by input alone."""
    found = []
    for user in users:
        rows = cut.snapshot("x").encode([r.input for r in user.records])
        for i in range(4, len(rows)):
            near = int(np.argmax(rows[:i] @ rows[i]))
            found.append(user.records[near].output == user.records[i].output)
    return float(np.mean(found))


def test_tune_learns_what_makes_records_help_users_it_has_not_seen(source: Path) -> None:
    cut = CutEncoder(source, 16)
    users, others = ([by_letter(f"u{i}", i) for i in part] for part in (range(12), range(50, 58)))
    cut.keep([t for u in (*users, *others) for r in u.records for t in (r.input, r.output)],
             progress=quiet)  # fmt: skip
    task = find_task("movie_tag", outputs=PLACES)
    how = Tuning(epochs=8, rate=1e-2, records=16)
    before, kept = helped(cut, others), cut.snapshot("before")
    text = users[0].records[0].input
    was = kept.encode([text])
    losses = tune(cut, [(u, task) for u in users], how, seed=0, progress=quiet)
    assert len(losses) == 8 * 12
    assert np.mean(losses[-12:]) < np.mean(losses[:12])
    assert helped(cut, others) > before + 0.15
    np.testing.assert_array_equal(kept.encode([text]), was)
    assert not np.allclose(cut.snapshot("after").encode([text]), was, atol=1e-3)


def test_worth_of_later_records_is_hidden() -> None:
    user = by_letter("u0", 0)
    worth = worth_of(user, find_task("movie_tag", outputs=PLACES), 16).numpy()
    assert (worth[np.triu_indices(16)] == -1.0).all()
    earlier = np.tril_indices(16, k=-1)
    shown = worth[earlier][earlier[0] >= 2]
    assert set(np.unique(shown)) == {0.0, 1.0}


def test_climb_tuned_judges_both_encoders_on_the_same_users_left_out(
    neutral: Bundle, source: Path, hash_encoder: object
) -> None:
    of = material(neutral, hash_encoder, everyone())
    cut = CutEncoder(source, 16)
    figures, losses = climb_tuned(of, cut, SIZE, Tuning(epochs=1), quiet)
    assert len(losses) == 6  # three users of each of two tasks
    for what in ("reranker", "adapter"):
        found = figures[what][ALL]
        assert found["encoder_tuned"]["tops"] == "encoder_as_it_is"
        assert found["encoder_tuned"]["users"] == found["encoder_as_it_is"]["users"]
        assert not found["encoder_tuned"]["pays"]  # three users a task are too few to say so
