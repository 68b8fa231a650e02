"""The text of one e-mail: what its author wrote, apart from quotes and signature.

Owns decoding a parsed message to plain text and splitting that text. It knows nothing of
mailboxes or records. Hostile mail may make the standard parser raise almost anything; the
caller catches it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import Header, decode_header
from email.message import Message
from html import unescape

_HIDDEN = frozenset({"script", "style", "template", "title"})
_BREAKS = frozenset(
    {"address", "blockquote", "body", "br", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4"}
    | {"h5", "h6", "header", "footer", "hr", "li", "ol", "p", "pre", "section", "table", "tr", "ul"}
)
# Possessive (``*+``), so that a tag without end is not tried again at every length.
_MARKUP = re.compile(
    r"<(?:(?P<comment>!--)|[!?][^<>]*+>|(?P<end>/?)(?P<tag>[A-Za-z][A-Za-z0-9]*+)[^<>]*+>)"
)
_SPACES = re.compile(r"\s+")
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")
# mbox writers put > before body lines that would look like the start of the next mail.
_ESCAPED_FROM = re.compile(r"^>(>*From )", re.MULTILINE)
# What mailers of many languages put before the subject of the mail that is answered or passed on.
_PREFIX = re.compile(
    r"(?:\[[^\[\]]*+\][ \t]*+)*+"
    r"(?:re|res|rif|fwd?|aw|antw|antwort|wg|sv|vs|vb|tr|rv|enc|odp|pd|ynt|ilt|回复|回覆|答复|转发|轉寄)"
    r"(?:\[\d+\])?[ \t]*+[:：]",
    re.IGNORECASE,
)
_ORIGINAL = re.compile(
    r"-{3,} ?(?:Original[ -]Message|Ursprüngliche Nachricht|Message d['’]origine|Mensaje original|"
    r"Mensagem original|Messaggio originale|Oorspronkelijk bericht|Oprindelig meddelelse|"
    r"Opprinnelig melding|Ursprungligt meddelande|Alkuperäinen viesti|Wiadomość oryginalna|"
    r"Původní zpráva|Исходное сообщение|Orijinal İleti|原始邮件|邮件原件|原始郵件|元のメッセージ|"
    r"원본 메시지|원본 메일) ?-{3,}",
    re.IGNORECASE,
)
_COLON = r"\*{0,2}[ \u00a0\u202f]?[:：]"  # French has a blank before it
# What mailers call the sender and the subject of a mail they append without ``>``, by language.
_HEADERS = [
    (re.compile(rf"(?:{sender}){_COLON}"), re.compile(rf"(?:{subject}){_COLON}"))
    for sender, subject in (
        ("From", "Subject"), ("Von", "Betreff"), ("De", "Objet|Asunto|Assunto|Assumpte"),
        ("Da", "Oggetto"), ("Van", "Onderwerp"), ("Fra", "Emne"), ("Från", "Ämne"),
        ("Lähettäjä", "Aihe"), ("Od|Nadawca", "Temat|Předmět|Predmet|Zadeva"),
        ("De la", "Subiect"), ("Feladó", "Tárgy"), ("Kimden|Gönderen", "Konu"), ("Από", "Θέμα"),
        ("От|От кого", "Тема|Относно"), ("Від", "Тема"), ("من", "الموضوع"), ("מאת", "נושא"),
        ("发件人|寄件者|寄件人|發件人", "主题|主旨|主題"), ("差出人|送信者", "件名"),
        ("보낸 ?사람", "제목"), ("Từ", "Chủ đề"), ("Dari", "Subjek|Perihal"),
    )
]  # fmt: skip
_ATTRIBUTION_START = re.compile(
    r"(?:On|Am|Le|El|Il|Em|Den|Op|W dniu|Dne|В|在) |\d{4}[-/.年]|\d{1,2}[./]\d{1,2}[./]\d{2}|"
    r"(?:\w{2,4}\.?,? )?\d{1,2}\.? \w+\.? \d{4}"
)
_ATTRIBUTION_END = re.compile(
    r"(?:wrote|writes|schrieb|écrit|escribió|escreveu|scritto|schreef|写道|@[^ ]+>).*[:：]$"
)
# The same, where a date or an address stands beside it: these words also end one's own sentences.
_DATED_ATTRIBUTION_END = re.compile(
    r"(?:пишет|писал|написал|пише|pisze|pisał|napisał|napsal|napísal|napisao|kirjoitti|skrev|írta|"
    r"yazdı|έγραψε|a scris|đã viết|menulis|寫道|のメール|書きました|작성|썼습니다|님의 메일|كتب|"
    r"כתב|ने लिखा)"
    r".*[:：]$"
)


@dataclass(frozen=True, slots=True)
class MailText:
    """What the author wrote, and the mail quoted in it (one level of ``>`` taken off)."""

    own: str
    quoted: str


def decoded(data: bytes, charset: str | None) -> str:
    """Decode bytes by the charset they claim; a claim that makes no sense means UTF-8."""
    try:
        return data.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):  # no such charset, or a codec that is not one
        return data.decode("utf-8", "replace")


def header_text(value: object) -> str:
    """Return a header's text, MIME words and raw bytes decoded, on one line."""
    if not isinstance(value, str | Header):
        return ""
    try:
        pairs = decode_header(value)
    except HeaderParseError:  # a MIME word that is broken stays as it is written
        pairs = [(str(value), None)]
    chunks = (
        chunk if isinstance(chunk, str) else decoded(chunk, charset) for chunk, charset in pairs
    )
    return _SPACES.sub(" ", "".join(chunks)).strip()


def plain_text(mail: Message) -> str:
    """Decode a mail's own text: text/plain, or HTML without the tags where there is no other.

    What it carries along (attachments, mails passed on) is not its text, nor is a footer that a
    mailing list puts behind it as a part of its own.
    """
    text = _part_text(mail).replace("\r\n", "\n").replace("\r", "\n")
    return _ESCAPED_FROM.sub(r"\1", text)


def _part_text(part: Message) -> str:
    """Return a part's text; of several parts the first one's that has any."""
    kind = part.get_content_type()
    if part.get_content_disposition() == "attachment" or kind.startswith("message/"):
        return ""
    if part.is_multipart():
        parts = [child for child in part.get_payload() if isinstance(child, Message)]
        if kind == "multipart/alternative":  # the same text in several forms
            parts.sort(key=lambda child: child.get_content_type() != "text/plain")
        return next((text for child in parts if (text := _part_text(child))), "")
    payload = part.get_payload(decode=True) if kind in {"text/plain", "text/html"} else None
    if not isinstance(payload, bytes):
        return ""
    text = decoded(payload, part.get_content_charset())
    text = html_text(text) if kind == "text/html" else text
    return text if text.strip() else ""


def html_text(html: str) -> str:
    """Return the visible text of HTML, with ``>`` before what stands in a blockquote.

    Not by ``html.parser``: it takes minutes over a megabyte of unclosed comments. This is
    linear, at the price of misreading a bare ``<`` or ``>`` inside an attribute.
    """
    pieces: list[str] = []
    quotes = place = 0
    while match := _MARKUP.search(html, place):
        pieces.append(_SPACES.sub(" ", unescape(html[place : match.start()])))
        place = match.end()
        tag = (match["tag"] or "").lower()
        if match["comment"] or (tag in _HIDDEN and not match["end"]):
            end = re.compile("-->" if match["comment"] else f"</{tag}[^<>]*+>", re.I)
            closing = end.search(html, place)
            place = closing.end() if closing else len(html)
        if tag == "blockquote":
            quotes = max(0, quotes + (-1 if match["end"] else 1))
        if tag in _BREAKS:
            pieces.append("\n" + "> " * min(quotes, 9))
    pieces.append(_SPACES.sub(" ", unescape(html[place:])))
    return _tidy([line.strip() for line in "".join(pieces).split("\n")])


def is_taken_over(subject: str) -> bool:
    """Whether a subject is that of an earlier mail: it begins with ``Re:``, ``Fwd:`` or the like.

    Tags of mailing lists may stand before.
    """
    return _PREFIX.match(subject.lstrip()) is not None


def split_quotes(text: str) -> MailText:
    """Split a mail's text into the author's own words and what they quote.

    Attribution lines ("On Monday, A wrote:") and the signature below ``--`` belong to neither.
    """
    own: list[str] = []
    quoted: list[str] = []
    in_quote = in_signature = False
    lines = text.split("\n")
    for place, line in enumerate(lines):
        rest = _after_header_block(lines, place)
        if rest is not None:  # all that follows is the earlier mail
            quoted.extend(lines[rest:])
            while own and not own[-1].strip("_ "):  # a rule above it
                own.pop()
            break
        if line.startswith(">"):
            if not in_quote:
                _drop_attribution(own)
            in_quote = True
            quoted.append(line[1:].removeprefix(" "))
            continue
        in_quote = in_quote and not line.strip()
        in_signature = in_signature or line.rstrip() == "--"
        if not in_signature:
            own.append(line.rstrip())
    return MailText(_tidy(own), _tidy(quoted))


def _tidy(lines: list[str]) -> str:
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _after_header_block(lines: list[str], place: int) -> int | None:
    """Return where an earlier mail, appended without ``>`` from ``place`` on, has its text."""
    start = place
    marked = _ORIGINAL.match(lines[place]) is not None
    if marked:
        start += 1
        while start < len(lines) and not lines[start].strip():
            start += 1
    block = [line.lstrip("* ") for line in lines[start : start + 8]]
    if any(
        block and sender.match(block[0]) and any(map(subject.match, block[1:]))
        for sender, subject in _HEADERS
    ):
        while start < len(lines) and lines[start].strip():
            start += 1
        return start
    return start if marked else None


def _drop_attribution(own: list[str]) -> None:
    """Remove the "On Monday, A wrote:" at the end, which mailers wrap over up to 3 lines."""
    while own and not own[-1].strip():
        own.pop()
    # Only the end of the line: the pattern is quadratic in its length.
    end = " ".join(own[-2:])[-300:]
    dated = re.search(r"[\d@]", end) and _DATED_ATTRIBUTION_END.search(end)
    if not dated and not _ATTRIBUTION_END.search(end):
        return
    first = len(own) - 1
    for place in range(first, max(-1, first - 3), -1):
        if not own[place].strip():
            break  # above it stands something else
        if _ATTRIBUTION_START.match(own[place]):
            first = place
            break
    del own[first:]
