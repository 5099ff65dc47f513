import asyncio
import gc
import inspect

import httpcore
import httpx
import pytest

from nbimg.backends import http
from nbimg.backends.http import MAYBE_SENT, NEVER_SENT, POOL, Http, Reply, bare, origin
from nbimg.credentials.keys import Secret
from nbimg.errors import InputError, OutcomeUnknownError, ReplyError, UnreachableError
from nbimg.testing import Fault, LocalServer
from nbimg.testing import Reply as Answer

KEY = "planted-key-0123456789"


class Echo(LocalServer):
    def answer(self, call):
        if call.path == "/redirect":
            return Answer(302, headers={"Location": "/there"})
        return Answer.of({"method": call.method, "path": call.path, "query": call.query})


@pytest.fixture
def echo():
    with Echo() as server:
        yield server


def send(*args, times=1, **options):
    async def go():
        client = Http("echo")
        try:
            replies = [await client.send(*args, **options) for _ in range(times)]
        finally:
            await client.close()
        return replies[-1]

    return asyncio.run(go())


def leaves(kind):
    below = [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)]
    return below or [kind]


def test_every_transport_error_of_httpx_is_in_the_table_once():
    known = {
        k for k in vars(httpx).values() if inspect.isclass(k) and issubclass(k, httpx.RequestError)
    }
    concrete = {kind.__name__ for kind in leaves(httpx.RequestError) if kind in known}
    assert concrete == {*NEVER_SENT, *MAYBE_SENT}
    assert not {*NEVER_SENT} & {*MAYBE_SENT}


@pytest.mark.parametrize("name", NEVER_SENT)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_was_never_sent_may_be_sent_again(name, method):
    error = Http("x")._translated(getattr(httpx, name)("why"), method, "https://h/p")
    assert type(error) is UnreachableError
    assert error.resubmit
    assert "why" in str(error)


@pytest.mark.parametrize("name", MAYBE_SENT)
def test_what_may_have_arrived_is_unknown_for_a_post_and_harmless_for_a_get(name):
    lost = getattr(httpx, name)("why")
    posted = Http("x")._translated(lost, "POST", "https://h/p")
    assert type(posted) is OutcomeUnknownError
    assert not posted.resubmit
    assert type(Http("x")._translated(lost, "GET", "https://h/p")) is UnreachableError


@pytest.mark.parametrize("name", [*NEVER_SENT, *MAYBE_SENT])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_error_ever_contains_a_key(name, method):
    Secret(KEY)
    lost = getattr(httpx, name)(f"Illegal header value b'Bearer {KEY}'")
    assert KEY not in str(Http("x")._translated(lost, method, "https://h/p"))


def test_a_reply_that_repeats_the_key_does_not_show_it():
    Secret(KEY)
    reply = Reply(500, {}, f"you sent {KEY}".encode(), "https://h/p")
    with pytest.raises(ReplyError) as caught:
        reply.json()
    assert KEY not in str(caught.value)
    assert "you sent" in str(caught.value)


def test_an_address_in_a_message_has_no_user_no_query_and_no_fragment():
    assert bare("https://user:pass@h:8/p/q?token=1#f") == "https://h:8/p/q"
    assert origin("https://user:pass@h:8/p") == "https://h:8"


def test_an_answer_comes_whole_with_its_status(echo):
    reply = send("GET", f"{echo.base_url}/a?b=c")
    assert (reply.status, reply.ok) == (200, True)
    assert reply.json() == {"method": "GET", "path": "/a", "query": "b=c"}
    assert reply.url == f"{echo.base_url}/a"


def test_redirects_are_followed_only_when_asked(echo):
    assert send("GET", f"{echo.base_url}/redirect").status == 302
    assert send("GET", f"{echo.base_url}/redirect", follow=True).json()["path"] == "/there"


def test_nobody_listening_is_unreachable_for_any_method():
    for method in ("GET", "POST"):
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
            send(method, "http://127.0.0.1:9/x")


@pytest.mark.parametrize("kind", ["drop", "truncate"])
def test_a_post_that_is_cut_off_is_unknown_and_a_get_may_be_repeated(echo, kind):
    echo.inject(Fault(kind, times=2, when="after"))
    with pytest.raises(OutcomeUnknownError):
        send("POST", echo.base_url)
    with pytest.raises(UnreachableError):
        send("GET", echo.base_url)


def test_a_silent_server_and_one_that_drips_are_given_up_in_time(echo, monkeypatch):
    monkeypatch.setattr(http, "CONNECT_S", 0.1)
    echo.inject(Fault("hang"), Fault("drip", delay_s=30))
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError):
            send("POST", echo.base_url, timeout_s=0.1)


def test_an_answer_larger_than_any_image_is_refused(echo, monkeypatch):
    monkeypatch.setattr(http, "MAX_DOWNLOAD_BYTES", 10)
    with pytest.raises(ReplyError, match="larger"):
        send("GET", echo.base_url)


@pytest.mark.parametrize("url", ["http://[bad", "http://exa mple:port/", "http://h:port/"])
def test_what_is_no_address_is_an_input_error(url):
    with pytest.raises(InputError, match="not an address"):
        send("GET", url)


def test_an_address_without_a_scheme_is_unreachable_with_a_hint():
    with pytest.raises(UnreachableError) as caught:
        send("GET", "example.com/x")
    assert "base URL" in caught.value.hint


def test_a_client_works_in_one_loop_after_the_other(echo):
    client = Http("echo")

    async def go():
        status = (await client.send("GET", echo.base_url)).status
        await client.close()
        return status

    assert [asyncio.run(go()), asyncio.run(go())] == [200, 200]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>", "502 Bad Gateway"),
        (b"<!doctype html><style>\np {}\n</style><p>down\n<b>for</b> now", "down for now"),
        (b"<Error>\n<Code>AccessDenied</Code></Error>", "AccessDenied"),
        (b"<p>cut of<a href='x", "cut of"),
        (b"upstream\n  failed", "upstream failed"),
        (b"1 < 2", "1 < 2"),
        (b"", ""),
    ],
)
def test_what_a_message_shows_of_a_body_is_one_line_without_tags(body, said):
    assert Reply(502, {}, body, "https://h/p").start == said


@pytest.fixture
def _no_collector():
    """What is in a cycle stays where it is."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_an_answer_that_was_read_is_let_go_without_the_garbage_collector(echo):
    assert send("GET", f"{echo.base_url}/x", times=3).ok
    assert not [one for one in gc.get_objects() if issubclass(type(one), httpx.Response)]


def test_the_connections_to_the_api_and_to_the_files_of_a_provider_are_both_kept(echo, monkeypatch):
    made, connect = [], httpcore.AsyncConnectionPool.create_connection
    monkeypatch.setattr(
        httpcore.AsyncConnectionPool,
        "create_connection",
        lambda pool, origin: made.append(origin) or connect(pool, origin),
    )

    async def go():
        client = Http("echo")
        try:
            for server in (echo, files, echo, files):
                urls = [f"{server.base_url}/{number}" for number in range(POOL)]
                await asyncio.gather(*(client.send("GET", url) for url in urls))
        finally:
            await client.close()

    with Echo() as files:
        asyncio.run(go())
    assert len(made) == 2 * POOL
