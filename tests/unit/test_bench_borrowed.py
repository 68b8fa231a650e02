"""Borrowed classifiers: the raters' archive as users, and what the bench says of borrowing."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import HashEncoder
from typer.testing import CliRunner

from bench.borrowed import ROWS, answer, summed_up
from bench.datasets import TaskData, draw_tasks, read_files
from bench.guard import BenchError
from bench.raters import BLOCK, TASK, app, read_rated, users_of
from hydra_edge.bundle import Bundle

FOLDER = "hutto_ICWSM_2014"


def archive_of(path: Path, sentences: list[str], ratings: list[list[int]]) -> Path:
    """Write a source distribution as vaderSentiment's is: an archive within an archive."""
    texts = {
        "movieReviewSnippets_GroundTruth.txt": [
            f"{i}\t0.5\t{sentence}" for i, sentence in enumerate(sentences, 1)
        ],
        "movieReviewSnippets_anonDataRatings.txt": [
            f"{i}\t0.5\t1.0\t{given}" for i, given in enumerate(ratings, 1)
        ],
    }
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name, lines in texts.items():
            add(archive, f"{FOLDER}/{name}", "\r\n".join(lines).encode("utf-8-sig"))
    with tarfile.open(path, "w:gz") as archive:
        add(archive, f"vader/additional_resources/{FOLDER}.tar.gz", inner.getvalue())
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two blocks of three people each, and one whose people change half-way."""
    sentences = [f"sentence {i}" for i in range(3 * BLOCK)]
    ratings = [[i % 5 - 2, 3, -4] for i in range(3 * BLOCK)]
    for row in ratings[-BLOCK // 2 :]:
        row.append(0)
    return archive_of(tmp_path / "vader.tar.gz", sentences, ratings)


def test_a_user_is_one_column_of_one_block(archive: Path, tmp_path: Path) -> None:
    rows = [*users_of(read_rated(archive), 2)]
    assert len(rows) == 2 * 2 * BLOCK, "two people of two blocks; the third block is no one's"
    second = [row for row in rows if row["user"] == "1-0"]
    assert [row["output"] for row in second] == [str(i % 5 - 2) for i in range(BLOCK, 2 * BLOCK)]
    assert [row["input"] for row in second] == [f"sentence {i}" for i in range(BLOCK, 2 * BLOCK)]
    out = tmp_path / "raters.jsonl.gz"
    done = CliRunner().invoke(app, [str(archive), "--out", str(out), "--each", "3"])
    assert done.exit_code == 0, done.output
    with gzip.open(out, "rt", encoding="utf-8") as stream:
        assert len([json.loads(line) for line in stream]) == 2 * 3 * BLOCK
    assert "6 users of 30 records" in done.output
    (data,) = draw_tasks(read_files([out]), users=9, queries=5, seed=0, specs={}, only=())
    assert (data.name, data.spec.kind) == (TASK, "rating")
    assert data.spec.labels == ("-4", "-2", "-1", "0", "1", "2", "3")


def test_another_archive_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as archive:
        add(archive, "readme.txt", b"nothing")
    for path in (other, tmp_path / "none.tar.gz"):
        with pytest.raises(BenchError, match=r"Expected the source distribution"):
            read_rated(path)


def drawn(tmp_path: Path, task: str, outputs: list[str]) -> TaskData:
    path = tmp_path / f"{task}.jsonl"
    rows = [
        {"user": f"u{u}", "id": f"{u}-{i}", "seq": i, "time": None, "task": task,
         "input": f"a text of {u} number {i}", "output": outputs[i % len(outputs)]}
        for u in range(2) for i in range(12)
    ]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (data,) = draw_tasks(read_files([path]), users=2, queries=3, seed=0, specs={}, only=())
    return data


def test_answers_are_made_with_and_without_what_the_base_lends(
    bundle: Bundle, tmp_path: Path
) -> None:
    data = drawn(tmp_path, "heat", ["1", "2", "2", "2", "3"])
    encoder = HashEncoder(bundle.base_id, bundle.manifest.dim)
    found = [answer(bundle, encoder, data, user, 6, 3) for user in data.users]
    assert found[0].shape == (len(ROWS), 3)
    habit = ROWS.index("habit")
    truths = [record.output for record in data.users[0].records[-3:]]
    np.testing.assert_allclose(found[0][habit], [1 - abs(int(t) - 2) / 2 for t in truths])


def test_no_number_is_given_where_nothing_is_lent(bundle: Bundle, tmp_path: Path) -> None:
    encoder = HashEncoder(bundle.base_id, bundle.manifest.dim)
    alien = drawn(tmp_path, "mood", ["calm", "odd"])
    with pytest.raises(BenchError, match="lends nothing to mood"):
        answer(bundle, encoder, alien, alien.users[0], 0, 3)
    known = drawn(tmp_path, "film_rating", ["1", "2"])
    with pytest.raises(BenchError, match="was trained on film_rating"):
        answer(bundle, encoder, known, known.users[0], 0, 3)


def test_summed_up_pairs_rows_by_user() -> None:
    one = np.tile(np.array([[0.5], [0.2], [0.6], [0.4], [0.5]], np.float32), 2)
    found = summed_up([one, one + np.float32(0.1)], seed=0)
    assert found["users"] == 2
    assert found["utility"]["habit"] == pytest.approx(0.55)
    assert found["gain_of_borrowing"]["own_fit"]["mean"] == pytest.approx(0.4)
    assert found["gain_of_borrowing"]["shared"]["low"] == pytest.approx(0.1)
