from __future__ import annotations

import json

import pytest

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import ImportLog, read_lamp

PAPER = {"id": "1", "title": "A title", "abstract": "An abstract"}
ARTICLE = {"id": "1", "title": "A title", "text": "A text"}


@pytest.fixture
def save(tmp_path):
    def write(value, name="questions.json"):
        path = tmp_path / name
        path.write_text(json.dumps(value))
        return path

    return write


def question(*profile, name="110", wording="?"):
    return {"id": name, "input": wording, "profile": list(profile)}


def read(questions, outputs=None, **options):
    log = ImportLog()
    return list(read_lamp(questions, outputs, log, **options)), log


@pytest.mark.parametrize(
    ("said", "item", "task", "asked", "written"),
    [
        ("LaMP_1", PAPER, "citation", "An abstract", "A title"),
        ("LaMP_2", ARTICLE | {"category": "travel"}, "news_category", "A title\nA text", "travel"),
        ("LaMP_2N", ARTICLE | {"category": "travel"}, "news_category", "A title\nA text", "travel"),
        ("LaMP_2", {"tag": "sci-fi", "description": "D"}, "movie_tag", "D", "sci-fi"),
        ("LaMP-2M", {"tag": "sci-fi", "description": "D"}, "movie_tag", "D", "sci-fi"),
        ("LaMP_3", {"text": "Good", "score": "5.0"}, "product_rating", "Good", "5"),
        ("LaMP_3", {"text": "Bad", "score": 1}, "product_rating", "Bad", "1"),
        ("LaMP_4", ARTICLE, "news_headline", "A text", "A title"),
        ("LaMP_5", PAPER, "paper_title", "An abstract", "A title"),
        ("LaMP_6", ARTICLE, "email_subject", "A text", "A title"),
    ],
)
def test_lamp_profile_becomes_records_by_the_stated_task(save, said, item, task, asked, written):
    questions = save([question(item)])
    outputs = save({"task": said, "golds": [{"id": "110", "output": "GOLD"}]}, "outputs.json")
    [record], log = read(questions, outputs)
    assert (record.task, record.input, record.output) == (task, asked, written)
    assert record.source == f"lamp:{questions}"
    assert (log.read, log.done, log.total, log.unit) == (1, 1, 1, "records")


@pytest.mark.parametrize(
    ("item", "wording", "task"),
    [
        (PAPER, 'For an author of "X", which reference is related? [1] or [2]', "citation"),
        (PAPER, "Generate a title for the following abstract of a paper: ...", "paper_title"),
        (ARTICLE, "Generate a headline for the following article: ...", "news_headline"),
        (ARTICLE, "Generate a subject for the following email: ...", "email_subject"),
        (ARTICLE | {"category": "c"}, "", "news_category"),
        ({"tag": "t", "description": "d"}, "", "movie_tag"),
        ({"text": "t", "score": 3}, "", "product_rating"),
    ],
)
def test_lamp_task_is_recognised_without_outputs(save, item, wording, task):
    [record], _ = read(save([question(item, wording=wording)]))
    assert record.task == task


def test_lamp_task_that_stays_unclear_needs_a_name(save):
    questions = save([question(PAPER)])
    with pytest.raises(ImportFormatError, match=r"keys 'abstract', 'id', 'title'.*name the task"):
        read(questions)
    [record], _ = read(questions, task="Paper-Title")
    assert (record.task, record.output) == ("paper_title", "A title")


def test_lamp_ids_dates_and_privacy_are_kept(save):
    items = [ARTICLE | {"id": 7, "date": "1970-01-02"}, ARTICLE | {"date": "long ago"}]
    questions = save([question(*items)])
    first, second = read(questions, task="news_headline", private=True)[0]
    assert (first.id, first.time, first.private) == ("7", 86400.0, True)
    assert (second.id, second.time) == ("1", None)


def test_lamp_question_itself_is_not_history(save):
    outputs = save({"task": "LaMP_4", "golds": [{"id": "110", "output": "GOLD"}]}, "outputs.json")
    records, _ = read(save([question(ARTICLE, wording="the test query")]), outputs)
    texts = [text for record in records for text in (record.input, record.output)]
    assert "the test query" not in texts
    assert "GOLD" not in texts


def test_lamp_tweets_are_skipped_with_a_reason(save):
    records, log = read(save([question({"id": "1", "text": "a tweet"})]))
    assert records == []
    assert log.skipped == {"a tweet has no input of its own": 1}


def test_lamp_file_of_several_people_needs_a_choice(save):
    questions = save([question(ARTICLE, name="110"), question({**ARTICLE, "id": "2"}, name="111")])
    with pytest.raises(ImportFormatError, match=r"it has 2 questions, the first ids are 110, 111"):
        read(questions, task="news_headline")
    with pytest.raises(ImportFormatError, match=r"no question '7'.*the first ids are 110, 111"):
        read(questions, task="news_headline", user="7")
    [record], _ = read(questions, task="news_headline", user="111")
    assert record.id == "2"


def test_lamp_people_not_in_ascii_are_named_as_they_are(save):
    questions = save([question(ARTICLE, name="Аня"), question(ARTICLE, name="Уля\u202e")])
    with pytest.raises(ImportFormatError, match=r"'Оля'.* first ids are Аня, Уля\\u202e\."):
        read(questions, user="Оля")


def test_lamp_bad_items_are_reported_and_the_others_kept(save):
    items = [ARTICLE, 7, {"title": "no text"}, {"text": " ", "title": "t"}, ARTICLE | {"id": [1]}]
    records, log = read(save([question(*items)]), task="news_headline")
    assert len(records) == 1
    assert [(bad.number, bad.reason) for bad in log.bad] == [
        (2, "the item is a number; expected an object"),
        (3, "no 'text'; expected text and title"),
        (5, "id is a list; expected text or a number"),
    ]
    assert log.skipped == {"empty input": 1}


def test_lamp_empty_profile_gives_nothing(save):
    records, log = read(save([question()]))
    assert (records, log.total) == ([], 0)


@pytest.mark.parametrize("value", [{"task": "LaMP_4", "golds": []}, [], [1], [{"id": "1"}]])
def test_lamp_questions_of_another_kind_are_refused(save, value):
    with pytest.raises(ImportFormatError, match="no question with a profile"):
        read(save(value))


def test_lamp_outputs_that_do_not_fit_are_refused(save):
    questions = save([question(ARTICLE)])
    with pytest.raises(ImportFormatError, match=r"called 'LaMP_3', which fits no task"):
        read(questions, save({"task": "LaMP_3"}, "outputs.json"))
    with pytest.raises(ImportFormatError, match="names no task"):
        read(questions, save([], "outputs.json"))


def test_lamp_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ImportFormatError, match=r"cannot be read: No such file"):
        read(tmp_path / "missing.json")
