from __future__ import annotations

import mailbox
from email.message import EmailMessage

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing import stopped_at_the_third

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers import ImportLog, read_mbox
from hydra_edge.importers.mailtext import MailText, html_text, is_taken_over, split_quotes
from hydra_edge.importers.mbox import only_sender

ME = "Ada <ada@example.org>"


def mail(body="Hello there.\n", *, sender=ME, subject="Greetings", **headers) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    if subject is not None:
        message["Subject"] = subject
    message["Date"] = headers.pop("date", "Thu, 01 Jan 1970 01:00:10 +0100")
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(body)
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mail.mbox"


def write(path, *mails):
    box = mailbox.mbox(path)
    for message in mails:
        box.add(message)
    box.close()


def read(path, **options):
    log = ImportLog()
    return list(read_mbox(path, log, **options)), log


def test_mail_becomes_body_and_subject(path):
    write(path, mail("Dear Bob,\n\nsee you.\n-- \nAda\n", subject="[list] Lunch 🍜 日本"))
    [record], log = read(path, me="ADA@")
    assert (record.input, record.output) == ("Dear Bob,\n\nsee you.", "[list] Lunch 🍜 日本")
    assert (record.task, record.private, record.time) == ("email_subject", True, 10.0)
    assert record.source == f"mbox:{path}"
    assert (log.read, log.done, log.total, log.unit) == (1, 1, 1, "mails")


def test_mail_id_depends_on_message_and_mode_only(path):
    write(path, mail("Yes.\n\n> Coming?\n", Message_ID="<1@x>"), mail())
    first, second = read(path, me="ada")[0]
    assert len(first.id) == 32
    assert second.id == ""
    assert read(path, me="ada")[0] == [first, second]
    [reply], _ = read(path, me="ada", mode="reply")
    assert reply.id not in {"", first.id}


def test_mail_private_can_be_lifted_and_task_named(path):
    write(path, mail())
    [record], _ = read(path, private=False, task="My-Mail")
    assert (record.private, record.task) == (False, "my_mail")


def test_mail_from_others_is_skipped_unless_nobody_is_named(path):
    write(path, mail(), mail(sender='"ada@example.org" <bob@example.org>'))
    records, log = read(path, me="ada@example.org")
    assert len(records) == 1
    assert log.skipped == {"from somebody else": 1}
    assert len(read(path)[0]) == 2


def test_mails_of_no_use_are_counted_by_reason(path):
    write(
        path,
        mail(subject=None),
        mail(subject=" "),
        mail("> all quoted\n"),
        mail("-----BEGIN PGP MESSAGE-----\nabc\n"),
    )
    records, log = read(path)
    assert records == []
    assert log.skipped == {"no subject": 2, "no text of one's own": 1, "encrypted": 1}


def test_mail_parts_attachments_and_html_are_told_apart(path):
    both = mail("the plain part\n")
    both.add_alternative("<p>the html part</p>", subtype="html")
    both.add_attachment("secret attachment", filename="a.txt")
    html = mail()
    html.set_content(
        "<html><head><title>t</title><style>p{}</style></head><body><p>One &amp; two</p>"
        "<script>x()</script>three<br>four<blockquote>quoted</blockquote></body></html>",
        subtype="html",
    )
    only_file = mail()
    only_file.clear_content()
    only_file.add_attachment(b"\x00", maintype="application", subtype="pdf", filename="a.pdf")
    carried = mail("BOB's private words\n")
    passed_on = mail()
    passed_on.set_content("<p>See what Bob wrote.</p>", subtype="html")
    passed_on.add_attachment(carried)
    listed = mail()
    listed.set_content("<p>To the list.</p>", subtype="html")
    listed.make_mixed()
    footer = EmailMessage()
    footer.set_content("You get this as a subscriber of the list.\n")
    listed.attach(footer)
    only_carries = mail()
    only_carries.clear_content()
    only_carries.make_mixed()
    inline = EmailMessage()
    inline.set_content(carried, disposition="inline")
    only_carries.attach(inline)
    blank_first = mail("\n")
    blank_first.make_mixed()
    blank_first.attach(both.get_body("plain"))
    write(path, both, html, only_file, passed_on, listed, only_carries, blank_first)
    records, log = read(path)
    assert [record.input for record in records] == [
        "the plain part", "One & two\nthree\nfour", "See what Bob wrote.", "To the list.",
        "the plain part",
    ]  # fmt: skip
    assert log.skipped == {"no text of one's own": 2}


def test_mail_in_old_encodings_is_decoded(path):
    path.write_bytes(
        b"From x\nFrom: ada@example.org\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?=\n"
        b"Content-Type: text/plain; charset=iso-8859-1\n"
        b"Content-Transfer-Encoding: quoted-printable\n\nsch=F6n\n\n"
        b"From x\nFrom: ada@example.org\nSubject: unknown\n"
        b"Content-Type: text/plain; charset=x-nonsense\n\nplain \xff\n\n"
        b"From x\nFrom: ada@example.org\nSubject: no text codec\n"
        b"Content-Type: text/plain; charset=zip\n\nplain\n\n"
        b"From x\nFrom: ada@example.org\nSubject: raw \xc3\xbc\n folded \xff\n\nplain\n\n"
        b"From x\nFrom: ada@example.org\nSubject: =?x-no?b?w7w=?= so\n\nplain\n\n"
        b"From x\nFrom: ada@example.org\nSubject: =?utf-8?b?a?=\n\nplain\n\n"
    )
    records, log = read(path)
    assert [(r.output, r.input) for r in records] == [
        ("Grüße", "schön"),
        ("unknown", "plain \ufffd"),
        ("no text codec", "plain"),
        ("raw ü folded \ufffd", "plain"),
        ("ü so", "plain"),
        ("=?utf-8?b?a?=", "plain"),
    ]
    assert log.bad == []


def test_mail_escaped_from_line_is_restored(path):
    write(path, mail("Hi.\nFrom here on it is fine.\n"))
    assert b">From here" in path.read_bytes()
    assert read(path)[0][0].input == "Hi.\nFrom here on it is fine."


@pytest.mark.parametrize("date", ["never", "Mon, 99 Foo 2020", ""])
def test_mail_with_unreadable_date_is_kept(path, date):
    path.write_text(f"From x\nFrom: a@b\nSubject: s\nDate: {date}\n\nbody\n")
    assert read(path)[0][0].time is None


def test_reply_finds_the_mail_it_answers(path):
    write(
        path,
        mail("Yes, at eight.\n-- \nAda\n", Message_ID="<2@x>", In_Reply_To="<1@x>"),
        mail(
            "Dinner?\n\n> older\n-- \nBob\n",
            sender="Bob <bob@example.org>",
            Message_ID="<1@x>",
        ),
    )
    [record], log = read(path, mode="reply", me="ada@")
    assert (record.input, record.output) == ("Dinner?", "Yes, at eight.")
    assert record.task == "email_reply"
    assert log.skipped == {"from somebody else": 1}


def test_reply_falls_back_on_what_it_quotes(path):
    write(
        path,
        mail("Yes.\n\nOn Mon, 1 Jan 2024, Bob\n<bob@example.org> wrote:\n> Dinner?\n>> older\n",
             In_Reply_To="<gone@x>"),
        mail("Just a mail.\n"),
    )  # fmt: skip
    [record], log = read(path, mode="reply", me="ada@")
    assert (record.input, record.output) == ("Dinner?", "Yes.")
    assert log.skipped == {"not a reply to a mail that is known": 1}


def test_reply_to_an_encrypted_mail_is_no_record_of_its_letters(path):
    write(
        path,
        mail("-----BEGIN PGP MESSAGE-----\nabc\n", sender="bob@example.org", Message_ID="<1@x>"),
        mail("Yes, at noon.\n", sender="ada@example.org", In_Reply_To="<1@x>"),
    )
    records, log = read(path, mode="reply", me="ada")
    assert records == []
    assert log.skipped["not a reply to a mail that is known"] == 1


def test_reply_without_own_address_is_refused(path):
    write(path, mail())
    with pytest.raises(ConfigError, match="Replies need your own address"):
        read(path, mode="reply")


def test_mail_mode_that_is_unknown_is_refused(path):
    with pytest.raises(ConfigError, match="mode is 'both'; expected subject or reply"):
        read(path, mode="both")


def test_mbox_reading_leaves_the_file_alone(path):
    write(path, mail())
    path.chmod(0o400)
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir()))
    read(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


def test_mbox_that_is_something_else_is_refused(path):
    path.write_text('{"input": "x"}\n')
    with pytest.raises(ImportFormatError, match="not a mailbox this can read"):
        read(path)


@pytest.mark.parametrize("name", ["missing.mbox", "."])
def test_mbox_that_cannot_be_opened_is_refused(tmp_path, name):
    with pytest.raises(ImportFormatError, match=r"cannot be read: .*Expected an mbox"):
        read(tmp_path / name)


def test_mbox_empty_gives_nothing(path):
    path.write_bytes(b"")
    assert read(path)[0] == []


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
@given(st.lists(st.binary()), st.sampled_from(["subject", "reply"]))
def test_mbox_of_arbitrary_mails_keeps_the_good_ones(path, junk, mode):
    headers = [
        b"Subject: ",
        b"From: ",
        b"Date: ",
        b"Message-ID: ",
        b"Content-Type: multipart/",
        b"",
    ]
    good = b"From x\nFrom: ada@b\nSubject: good\n\nown words\n> asked\n\n"
    bad = [b"From x\n" + headers[n % 6] + data + b"\n\n" for n, data in enumerate(junk)]
    path.write_bytes(good + b"".join(bad) + good)
    records, log = read(path, mode=mode, me="ada@b")
    assert sum(r.input == ("own words" if mode == "subject" else "asked") for r in records) >= 2
    assert log.read == len(records)
    assert log.read + log.skipped.total() + log.bad_total == log.total


@pytest.mark.parametrize(
    "subject",
    ["Re: Fwd: AW: x", "RE[2]: x", "Re：x", "WG: x", "fw : x", " SV: x", "[a] Re: x", "[a][b]tr: x",
     "Re:", "回复：x", "Antwort: x"],
)  # fmt: skip
def test_subject_with_a_prefix_is_taken_over(subject):
    assert is_taken_over(subject)


@pytest.mark.parametrize(
    "subject", ["Reply: x", "About Re: x", "[a] x", "Re x", "", "Research: x", "[re]: x"]
)
def test_subject_without_a_prefix_is_ones_own(subject):
    assert not is_taken_over(subject)


def test_mail_that_answers_teaches_nobody_elses_subject(path):
    write(
        path,
        mail(subject="Lunch on Friday"),
        mail("Gladly.\n", subject="Re: Lunch?"),
        mail("See below.\n", subject="WG: Lunch?"),
        mail("Gladly.\n", subject="Lunch?", In_Reply_To="<1@x>"),
        mail("Gladly.\n", subject="Lunch?", References="<1@x>"),
        mail("Gladly.\n", subject="Re: Lunch?", sender="Bob <bob@example.org>"),
    )
    records, log = read(path, me="ada@")
    assert [record.output for record in records] == ["Lunch on Friday"]
    assert log.skipped == {
        "with the subject of an earlier mail (reply or forward)": 4,
        "from somebody else": 1,
    }


def test_reply_mode_keeps_replies_whatever_their_subject(path):
    write(path, mail("Yes.\n\n> Dinner?\n", subject="Re: Dinner", In_Reply_To="<gone@x>"))
    [record], _ = read(path, me="ada@", mode="reply")
    assert record.output == "Yes."


@pytest.mark.parametrize(
    ("text", "own", "quoted"),
    [
        ("a\n> q\nb", "a\nb", "q"),
        ("a\n\nOn 1.1.2024 Bob wrote:\n\n> q", "a", "q"),
        ("a\nAm Montag, 1. Januar schrieb Bob:\n> q", "a", "q"),
        ("a\n2024年1月1日 Bob <b@c> 写道：\n> q", "a", "q"),
        ("These are my points:\n> q", "These are my points:", "q"),
        ("> q\n\nanswer\n-- \nsig\n", "answer", "q"),
        ("a\n\n-----Original Message-----\nFrom: B\nSubject: s\n\nold", "a", "old"),
        ("a\n\n-----Original Message-----\nold", "a", "old"),
        ("a\n____________________\nFrom: B\nSent: x\nTo: A\nSubject: s\n\nold", "a", "old"),
        ("From: the bottom of my heart,\nthanks", "From: the bottom of my heart,\nthanks", ""),
    ],
)  # fmt: skip
def test_quotes_are_split_from_own_words(text, own, quoted):
    parts = split_quotes(text)
    assert (parts.own, parts.quoted) == (own, quoted)


@pytest.mark.parametrize(
    "headers",
    [
        "De : Anne\nEnvoyé : lundi\nÀ : moi\nObjet : salut",
        "De\u00a0: Anne\nEnvoyé\u00a0: lundi\nÀ\u00a0: moi\nObjet\u00a0: salut",
        "*De :* Anne\n*Envoyé :* lundi\n*Objet :* salut",
        "-----Message d'origine-----\nDe : Anne\nObjet : salut",
        "-----Message d’origine-----",
        "Van: Jan\nVerzonden: ma\nAan: ik\nOnderwerp: hoi",
        "Da: Mario\nInviato: lun\nA: me\nOggetto: ciao",
        "De: Ana\nEnviado: lun\nPara: mí\nAsunto: hola",
        "De: Ana\nEnviado: seg\nPara: eu\nAssunto: oi",
        "Od: Jan\nWysłano: pon\nDo: ja\nTemat: hej",
        "Från: Eva\nSkickat: mån\nTill: mig\nÄmne: hej",
        "От: Иван\nОтправлено: пн\nКому: я\nТема: привет",
        "-----Исходное сообщение-----\nОт: Иван\nТема: привет",
        "发件人: 王伟\n发送时间: 2025年1月6日\n收件人: 我\n主题: 你好",
        "发件人：王伟\n收件人：我\n主题：你好",
        "-----元のメッセージ-----\n差出人: 山田\n件名: こんにちは",
        "差出人：山田\n宛先：私\n件名：こんにちは",
        "보낸 사람: 김철수\n받는 사람: 나\n제목: 안녕",
    ],
)
def test_mail_appended_in_any_language_is_quoted(headers):
    parts = split_quotes(f"thanks\n\n________________\n{headers}\n\nold")
    assert (parts.own, parts.quoted) == ("thanks", "old")


@pytest.mark.parametrize(
    "attribution",
    [
        "Пн, 6 янв. 2025 г. в 10:00, Иван Петров <ivan@x.ru>:",
        "06.01.2025 10:00, Иван Петров пишет:",
        "6 января 2025 г., 10:00, Иван\nПетров написал:",
        "W dniu 6.01.2025 o 10:00, Jan\nKowalski pisze:",
        "Dne 6. 1. 2025 v 10:00 Jan Novák napsal(a):",
        "Matti kirjoitti 6.1.2025 klo 10:00:",
        "2025/01/06 10:00、山田さんのメール:",
        "2025년 1월 6일 (월) 오전 10:00, 김철수님이 작성:",
        "Ali, 6 Oca 2025 Pzt, 10:00 tarihinde şunu yazdı:",
    ],
)
def test_attribution_in_any_language_is_nobodys_text(attribution):
    parts = split_quotes(f"thanks\n{attribution}\n\n> old")
    assert (parts.own, parts.quoted) == ("thanks", "old")


@pytest.mark.parametrize(
    "own",
    [
        "De : rien, vraiment.\nMerci.",
        "De: Ana\nSubject: two languages",
        "Objet : la réunion\nDe : huit heures à midi",
        "Van: alles wat\nEn verder niets.",
        "От: меня\nпривет",
        "主题：我们的会议\n发件人：不知道",
        "Message d'origine inconnue",
        "差出人は山田です。\n件名: なし",
    ],
)
def test_own_text_with_words_of_mailers_stays(own):
    assert split_quotes(own) == MailText(own, "")


@pytest.mark.parametrize(
    "own", ["Jan pisze:", "Вот что он написал:", "On Friday I am away.", "6 мая 2025 меня нет."]
)
def test_own_line_above_a_quote_stays(own):
    between = "" if own.endswith(":") else "\n\nBob wrote:"
    assert split_quotes(f"Hello.\n{own}{between}\n> old").own == f"Hello.\n{own}"


@settings(deadline=None)  # a loaded machine is no failure
@given(st.text())
def test_html_of_any_kind_becomes_text(html):
    assert isinstance(html_text(html), str)


def sender_of(path):
    return only_sender(path, ImportLog())


def test_only_sender_is_one_address_however_it_is_written(path):
    write(path, mail(), mail(sender="ADA@example.org"), mail(sender=""))
    assert sender_of(path) == "ada@example.org"


def test_only_sender_without_any_is_none(path):
    path.write_text("From x\nSubject: s\n\nFrom: in the body\n")
    assert sender_of(path) is None


def test_only_sender_several_are_listed_the_most_frequent_first(path):
    others = [mail(sender=f"p{i}@example.org") for i in range(9)]
    write(path, *others, mail(), mail())
    with pytest.raises(ImportFormatError, match="mail of 10 senders") as caught:
        sender_of(path)
    assert "frequent are ada@example.org (2), p0@example.org (1)" in str(caught.value)
    assert "p4" not in str(caught.value)
    assert "--me '*'" in str(caught.value)


def test_only_sender_for_replies_does_not_advise_all_mail(path):
    write(path, mail(), mail(sender="bob@example.org"))
    with pytest.raises(ImportFormatError, match=r"--me ADDRESS \(a part of it will do\)\.$"):
        only_sender(path, ImportLog(), mode="reply")


@pytest.mark.parametrize(
    "scan",
    [
        only_sender,
        lambda path, log: next(read_mbox(path, log, mode="reply", me="nobody"), None),
        lambda path, log: next(read_mbox(path, log, me="nobody"), None),
    ],
    ids=["senders", "replies", "mails of others"],
)
def test_mails_that_give_no_record_are_watched_one_by_one(path, scan):
    write(path, *(mail() for _ in range(5)))
    seen = stopped_at_the_third(lambda log: scan(path, log))
    assert seen == [1, 2, 3]


def test_only_sender_of_what_is_no_mbox_is_an_error(path):
    with pytest.raises(ImportFormatError, match="cannot be read"):
        sender_of(path)
    path.write_text("no mail")
    with pytest.raises(ImportFormatError, match="not a mailbox"):
        sender_of(path)
