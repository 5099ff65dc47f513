from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from nbimg.backends.http import Reply
from nbimg.backends.plain import checked, retry_after_s


def reply(status, body=b"{}", **headers):
    return Reply(status, headers, body, "https://api.example/images")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "RejectedError"),
        (401, "KeyRejectedError"),
        (402, "QuotaExceededError"),
        (403, "KeyRejectedError"),
        (404, "RejectedError"),
        (422, "RejectedError"),
        (429, "BusyError"),
        (500, "UnreachableError"),
        (503, "UnreachableError"),
    ],
)
def test_each_status_is_an_error_that_knows_it(status, kind):
    with pytest.raises(Exception, match="example") as caught:
        checked(reply(status), "example")
    assert type(caught.value).__name__ == kind
    assert caught.value.http_status == status


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail": "too wide"}',
        b'{"message": "too wide"}',
        b'{"error": "too wide"}',
        b'{"error": {"code": 7, "message": "too wide"}}',
        b'{"error": {"title": "too wide"}, "status": 400}',
        b"too wide",
    ],
)
def test_the_reason_is_found_wherever_it_stands(body):
    with pytest.raises(Exception, match="too wide"):
        checked(reply(400, body), "example")


@pytest.mark.parametrize("body", [b"[1, 2]", b"null", b"{}", b'{"error": {}}', b"<html>"])
def test_a_body_without_a_reason_is_shown_as_it_begins(body):
    with pytest.raises(Exception, match="refused the request"):
        checked(reply(400, body), "example")


@pytest.mark.parametrize(
    ("headers", "body", "text", "seconds"),
    [
        ({"retry-after": "7"}, {"retry_after": 3}, "resets in ~1s", 7),
        ({}, {"retry_after": 3}, "resets in ~1s", 3),
        ({}, {"retry_after": "2.5"}, "", 2.5),
        ({}, {}, "Your rate limit resets in ~30s.", 30),
        ({"retry-after": "soon"}, {}, "", None),
        ({}, {"retry_after": None}, "", None),
        ({}, {}, "", None),
    ],
)
def test_a_429_says_when_to_come_back_in_header_field_or_text(headers, body, text, seconds):
    assert retry_after_s(headers, body, text) == seconds


def test_a_date_in_the_header_is_understood():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after_s({"retry-after": at}, {}, "") <= 60
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
    assert retry_after_s({"retry-after": past}, {}, "") == 0
