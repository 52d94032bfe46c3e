"""What an answer means: a result, or a failure with its reason and whether to retry. Pure.

The other side is not trusted: it names a character set only, never any codec that Python has. Some
of those take time that grows with the square of the text.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime

from stretto.common.v1.payload_pb2 import Payload
from stretto_core.errors import Refusal
from stretto_sdk.arguments.http import RESPONSE_BYTES_MAX, Answers, Expect
from stretto_sdk.strict_json import parse_json, to_json
from stretto_sdk.worker.effects import Ending, Succeeded
from stretto_sdk.worker.endings import failed, payload_of

from stretto_worker.domain.redaction import Redaction

BODY_SHOWN_BYTES = 2_048
RETRY_AFTER_S_MAX = 24 * 3600
_CHARACTER_SETS = re.compile(
    r"utf-(8|16|32)(-sig|-le|-be)?|ascii|iso8859-\d+|cp\d+|koi8-[ru]|mac-roman|big5|big5hkscs|"
    r"gb2312|gbk|gb18030|euc_jp|euc_kr|shift_jis|iso2022_jp"
)
"""What an answer's text may be in, by Python's own names."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case. `body` is what was read of it."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def ending_of_answer(
    answer: Answer, answers: Answers, shown: str, redaction: Redaction, now: datetime
) -> Ending:
    """Return how the attempt ended. shown: the request, for people."""
    if answer.status in answers.success:
        return _result(answer, answers, redaction)
    retryable = answers.is_retryable(answer.status)
    ending = failed("HTTP_STATUS", f"{shown}: status {answer.status}", retryable=retryable)
    details = {**_head(answer, answers, redaction)}
    if answer.body:
        text = redaction.text(answer.body.decode("utf-8", "replace"))
        details["body"] = text[:BODY_SHOWN_BYTES]
    ending.failure.details.CopyFrom(Payload(json=to_json(details, source="the details")))
    after_s = retry_after_s(answer.headers, now) if retryable else None
    if after_s is not None:
        ending.failure.retry_after.FromSeconds(after_s)
    return ending


def retry_after_s(headers: Mapping[str, str], now: datetime) -> int | None:
    """Return the seconds to wait that an answer asks for, a day at most; None when it does not.

    A date counts from the answer's own Date: the two clocks need not agree.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return min(int(text[:9]), RETRY_AFTER_S_MAX)
    instant = _date(text)
    if instant is None:
        return None
    since = _date(headers.get("date", "")) or now
    return max(0, min(int((instant - since).total_seconds()), RETRY_AFTER_S_MAX))


def _result(answer: Answer, answers: Answers, redaction: Redaction) -> Ending:
    try:
        body = redaction.value(_body(answer, answers.expect))
        result = {**_head(answer, answers, redaction), "body": body}
        # Text has up to six times the bytes as JSON; what is around it is little.
        bytes_max = 7 * RESPONSE_BYTES_MAX
        return Succeeded(payload_of(result, source="the result", bytes_max=bytes_max))
    except (UnicodeError, LookupError) as error:
        return failed("INVALID_RESPONSE", redaction.text(f"the body is no text: {error}"))
    except Refusal as refusal:
        large = refusal.reason_word == "PAYLOAD_TOO_LARGE"
        reason = "RESULT_TOO_LARGE" if large else "INVALID_RESPONSE"
        return failed(reason, redaction.text(refusal.message))


def _body(answer: Answer, expect: Expect) -> object:
    match expect:
        case Expect.NOTHING:
            return None
        case Expect.TEXT:
            return answer.body.decode(_charset(answer.headers.get("content-type", "")))
        case Expect.JSON:
            blank = not answer.body.strip()
            return None if blank else parse_json(answer.body, source="the body")


def _head(answer: Answer, answers: Answers, redaction: Redaction) -> dict[str, object]:
    chosen = {
        name: redaction.text(answer.headers[name])
        for name in answers.headers
        if name in answer.headers
    }
    return {"status": answer.status, "headers": chosen}


def _charset(content_type: str) -> str:
    message = Message()
    message["content-type"] = content_type
    name = message.get_content_charset("utf-8")
    if "\0" in name or not _CHARACTER_SETS.fullmatch(codecs.lookup(name).name):
        raise LookupError(f"{name!r} is no character set of texts")
    return name


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
