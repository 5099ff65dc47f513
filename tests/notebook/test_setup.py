"""Setting a key: asked for where it is not shown, tried, kept; in a real kernel with somebody who types."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import dataclass, field

import pytest
from jupyter_core.utils import run_sync

from nbimg.testing import Fault
from nbimg.testing.openai import OpenAIServer

WRONG = "r8-wrong-0123456789"


@dataclass
class Typed:
    """A cell that somebody answered: what it asked, whether it hid the answer, what it printed."""

    asked: list[str] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    text: str = ""
    error: str = ""


def typing(notebook, source: str, *answers: str) -> Typed:
    """Run a cell as a front end that can be typed into."""
    typed, left = Typed(), list(answers)
    client = notebook._client.kc

    async def run() -> None:
        message = client.execute(source, allow_stdin=True)
        while True:
            if await client.stdin_channel.msg_ready():
                content = (await client.get_stdin_msg(timeout=1))["content"]
                typed.asked.append(content["prompt"])
                typed.hidden.append(content["password"])
                client.input(left.pop(0))
            if not await client.iopub_channel.msg_ready():
                continue
            told = await client.get_iopub_msg(timeout=10)
            if told["parent_header"].get("msg_id") != message:
                continue
            content = told["content"]
            if told["msg_type"] == "stream":
                typed.text += content["text"]
            elif told["msg_type"] == "error":
                typed.error = "\n".join(content["traceback"])
            elif told["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        while (await client.get_shell_msg(timeout=10))["parent_header"]["msg_id"] != message:
            pass

    run_sync(run)()
    assert not left, f"it did not ask for {left}: {typed}"
    return typed


@pytest.fixture
def keyless(notebook, server):
    """A notebook without a key."""
    notebook.run("import os; del os.environ['REPLICATE_API_TOKEN']")
    return notebook


def place(notebook, provider: str = "replicate") -> str:
    return notebook.value(f"__import__('nbimg').session.default().keys.place({provider!r})")


# ------------------------------------------------------------------ asked, tried, kept


def test_a_key_is_asked_for_without_an_echo_tried_and_kept_for_the_session(keyless, server):
    typed = typing(keyless, "%imgsetup replicate", server.token, "")
    assert typed.hidden == [True, False]
    assert "REPLICATE_API_TOKEN" in typed.asked[0]
    assert "this session" in typed.asked[1]
    assert "replicate accepts the key: account example." in typed.text
    assert "until the kernel ends" in typed.text
    assert server.token not in typed.text + "".join(typed.asked)
    assert [(call.method, call.path) for call in server.requests] == [("GET", "/v1/account")]
    assert place(keyless) == "this session"
    assert keyless.run("%%imggen -m flux-dev\na cat").ok


def test_a_key_that_the_provider_does_not_know_is_not_kept(keyless, server):
    typed = typing(keyless, "%imgsetup replicate --env", WRONG)
    assert "does not accept the key" in typed.error
    assert "Nothing was kept" in typed.error
    assert len(typed.error.splitlines()) == 2
    assert WRONG not in typed.error + typed.text
    assert not (keyless.folder / ".env").exists()
    assert place(keyless) == "None"


def test_a_provider_that_cannot_be_asked_is_said_and_the_key_is_kept(keyless, server):
    server.inject(Fault("html", "GET", "/v1/account", status=503))
    typed = typing(keyless, "%imgsetup replicate --session", server.token)
    assert "It could not be tried: replicate answered 503" in typed.text
    assert place(keyless) == "this session"


def test_what_is_copied_along_is_taken_off(keyless, server):
    typing(keyless, "%imgsetup replicate --session", f'export REPLICATE_API_TOKEN="{server.token}"')
    assert place(keyless) == "this session"
    assert keyless.run("%%imggen -m flux-dev\na cat").ok


@pytest.mark.parametrize("typed_in", ["two words", "r8-ключ-0000", 'r8-"quo ted"'])
def test_what_no_key_is_like_is_one_line(keyless, server, typed_in):
    typed = typing(keyless, "%imgsetup replicate", typed_in)
    assert 1 <= len(typed.error.splitlines()) <= 2, typed.error
    assert typed_in not in typed.error
    assert not server.requests


def test_enter_changes_nothing(keyless, server):
    assert "Nothing was changed" in typing(keyless, "%imgsetup replicate", "").text
    assert not server.requests


def test_enter_keeps_the_key_that_is_there_and_tries_it(notebook, server):
    typed = typing(notebook, "%imgsetup replicate", "")
    assert "The key from the environment stays." in typed.text
    assert "account example" in typed.text


def test_a_wrong_place_is_asked_for_again(keyless, server):
    typed = typing(keyless, "%imgsetup replicate", server.token, "9", "nowhere", ".env")
    assert len(typed.asked) == 4
    assert "A number from 1 to 2" in typed.text
    assert place(keyless) == ".env"


def test_a_credential_of_several_parts_is_asked_for_part_by_part(keyless):
    typed = typing(
        keyless, "%imgsetup hunyuan --session", "", "AKIDplanted0001", "planted-key-0001"
    )
    assert typed.hidden == [True] * 3
    assert "HUNYUAN_SECRET_ID and HUNYUAN_SECRET_KEY" in typed.asked[0]
    assert "It could not be tried" in typed.text
    assert place(keyless, "hunyuan") == "this session"
    again = typing(keyless, "%imgsetup speedpix", "planted-app-key", "")
    assert "belong together" in again.error
    assert place(keyless, "speedpix") == "None"


@pytest.fixture
def servers_of_others(keyless):
    """Local servers of two more providers; Hunyuan's has nothing that costs nothing without jobs."""
    from nbimg.testing.hunyuan import HunyuanServer
    from nbimg.testing.speedpix import SpeedPixServer

    with OpenAIServer() as openai, SpeedPixServer() as speedpix, HunyuanServer() as hunyuan:
        for name, server in [("OPENAI", openai), ("SPEEDPIX", speedpix), ("HUNYUAN", hunyuan)]:
            keyless.run(f"os.environ['NBIMG_{name}_BASE_URL'] = {server.base_url!r}")
        yield {"openai": openai, "speedpix": speedpix, "hunyuan": hunyuan}
        for server in (speedpix, hunyuan):
            assert not server.jobs, "a trial costs nothing"


def test_every_provider_is_tried_by_what_costs_nothing(keyless, servers_of_others):
    from nbimg.testing.hunyuan import FAKE_API_KEY, FAKE_SECRET_ID, FAKE_SECRET_KEY
    from nbimg.testing.openai import FAKE_OPENAI_KEY
    from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET

    def tried(provider: str, *parts: str) -> Typed:
        return typing(keyless, f"%imgsetup {provider} --session", *parts)

    assert "openai accepts the key: " in tried("openai", FAKE_OPENAI_KEY).text
    assert "does not accept" in tried("openai", "sk-wrong-0123456789").error
    assert "accepts the key" in tried("speedpix", FAKE_APP_KEY, FAKE_APP_SECRET).text
    assert "not accept" in tried("speedpix", FAKE_APP_KEY, "wrong-0123456789").error
    assert (
        "accepts the key: API signed" in tried("hunyuan", "", FAKE_SECRET_ID, FAKE_SECRET_KEY).text
    )
    assert "not accept" in tried("hunyuan", "", FAKE_SECRET_ID, "wrong-0123456789").error
    assert "It was not tried" in tried("hunyuan", FAKE_API_KEY).text


# ------------------------------------------------------------------ the file


def git(folder, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", folder, *words], capture_output=True, text=True, check=False
    )
    return done.stdout


def test_the_file_is_for_its_owner_alone_and_keeps_what_else_is_in_it(keyless, server):
    path = keyless.folder / ".env"
    path.write_text(
        "# mine\nOTHER='a b'\nexport REPLICATE_API_TOKEN=old  # of May\nREPLICATE_API_TOKEN=older\nLAST=1"
    )
    path.chmod(0o644)
    typed = typing(keyless, "%imgsetup replicate --env", server.token)
    assert "which only you can read" in typed.text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == (
        f"# mine\nOTHER='a b'\nexport REPLICATE_API_TOKEN={server.token}\nLAST=1"
    )
    assert place(keyless) == ".env"
    assert [each.name for each in keyless.folder.glob(".env*")] == [".env"]
    assert not (keyless.folder / ".gitignore").exists(), "no git here"
    typing(keyless, "%imgsetup hunyuan --env", "sk-planted-'0001")
    assert path.read_text().endswith("LAST=1\nHUNYUAN_API_KEY='sk-planted-\\'0001'\n")
    assert place(keyless, "hunyuan") == ".env"


def test_in_a_git_work_tree_the_file_is_ignored(keyless, server):
    folder = keyless.folder
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("*.tmp")
    typed = typing(keyless, "%imgsetup replicate --env", server.token)
    assert ".gitignore has a line for it now" in typed.text
    assert (folder / ".gitignore").read_text() == "*.tmp\n.env\n"
    assert ".env" not in git(folder, "status", "--porcelain", "-uall").split()
    typing(keyless, "%imgsetup replicate --env", server.token)
    assert (folder / ".gitignore").read_text() == "*.tmp\n.env\n", "one line is enough"


def test_what_is_ignored_already_needs_no_line(keyless, server):
    folder = keyless.folder
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text(".en*\n")
    typing(keyless, "%imgsetup replicate --env", server.token)
    assert (folder / ".gitignore").read_text() == ".en*\n"


def test_a_file_that_git_has_already_is_said(keyless, server):
    folder = keyless.folder
    git(folder, "init", "-q")
    (folder / ".env").write_text("A=1\n")
    git(folder, "add", ".env")
    assert "git rm --cached" in typing(keyless, "%imgsetup replicate --env", server.token).text


def test_a_key_in_the_environment_is_said_to_win_next_time(notebook, server):
    notebook.run(f"import os; os.environ['REPLICATE_API_TOKEN'] = {WRONG!r}")
    typed = typing(notebook, "%imgsetup replicate --env", server.token)
    assert "A new kernel will take the key of the environment first" in typed.text
    assert notebook.run("%%imggen -m flux-dev\na cat").ok, "and here the new one is used"


def test_a_key_that_is_kept_elsewhere_takes_the_place_of_that_of_the_session(keyless, server):
    typing(keyless, "%imgsetup replicate --session", server.token)
    typed = typing(keyless, "%imgsetup replicate --env", server.token)
    assert place(keyless) == ".env"
    assert "first" not in typed.text


# ------------------------------------------------------------------ the keyring, forgetting

MEMORY = """
import keyring, keyring.backend
class Memory(keyring.backend.KeyringBackend):
    priority, kept = 1, {}
    def get_password(self, service, name): return self.kept.get((service, name))
    def set_password(self, service, name, value): self.kept[service, name] = value
    def delete_password(self, service, name): del self.kept[service, name]
keyring.set_keyring(Memory())
"""


@pytest.fixture
def with_keyring(keyless):
    keyless.run(MEMORY)
    yield keyless
    keyless.run(
        "import keyring.backends.null; keyring.set_keyring(keyring.backends.null.Keyring())"
    )


def test_the_keyring_is_offered_and_used(with_keyring, server):
    typed = typing(with_keyring, "%imgsetup replicate", server.token, "keyring")
    assert "2 the keyring" in typed.asked[1]
    assert place(with_keyring) == "the keyring"
    assert with_keyring.value("list(Memory.kept)") == "[('nbimg', 'REPLICATE_API_TOKEN')]"
    assert with_keyring.run("%%imggen -m flux-dev\na cat").ok


def test_another_way_takes_the_place_of_the_first_in_the_keyring(with_keyring):
    typing(with_keyring, "%imgsetup hunyuan --keyring", "sk-planted-0001")
    typing(with_keyring, "%imgsetup hunyuan --keyring", "", "AKIDplanted1", "planted-key-1")
    assert "API_KEY" not in with_keyring.value("list(Memory.kept)")


def test_forgetting_takes_a_key_away_from_wherever_it_was_kept(with_keyring, server):
    for where in ("session", "keyring", "env"):
        typing(with_keyring, f"%imgsetup replicate --{where}", server.token)
        said = with_keyring.run("%imgsetup replicate --forget").text
        assert "The key of replicate is gone from" in said, where
        assert place(with_keyring) == "None"
        assert (
            not (with_keyring.folder / ".env").exists()
            or server.token not in (with_keyring.folder / ".env").read_text()
        )
    assert "There is no key of replicate" in with_keyring.run("%imgsetup replicate --forget").text
    with_keyring.run(f"os.environ['REPLICATE_API_TOKEN'] = {server.token!r}")
    said = with_keyring.run("%imgsetup replicate --forget").text
    assert "one in the environment, which has to be taken away there" in said


def test_without_a_keyring_it_is_neither_offered_nor_taken(keyless, server):
    assert "keyring" not in typing(keyless, "%imgsetup replicate", server.token, "").asked[1]
    assert "pip install 'nbimg[keyring]'" in keyless.run("%imgsetup replicate --keyring").error


# ------------------------------------------------------------------ the list, the line, nobody there


def test_without_a_provider_the_keys_are_listed_by_where_they_come_from(notebook, server):
    notebook.run("os = __import__('os'); os.environ['SPEEDPIX_APP_KEY'] = 'planted-app-key'")
    text = notebook.run("%imgsetup").text
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "key from the environment" in lines["replicate"]
    assert "no key" in lines["openai"]
    assert "%imgsetup openai, or set OPENAI_API_KEY" in lines["openai"]
    assert "SPEEDPIX_APP_SECRET is missing beside SPEEDPIX_APP_KEY" in lines["speedpix"]
    assert server.token not in text
    assert "planted-app-key" not in text
    notebook.run("del os.environ['SPEEDPIX_APP_KEY']")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("replicat", "Did you mean replicate"),
        ("r8_S3cretLookingThing0123456789abcdefgh", "name of no provider"),
        ("12345678", "name of no provider"),
        ("replicate r8_S3cretLookingThing0123456789abcdefgh", "saved with the notebook"),
        ("replicate --key=r8_S3cretLookingThing0123456789abcdefgh", "no option '--key'"),
        ("replicate --r8_S3cretLookingThing0123456789abcdefgh", "no option"),
        ("replicate --envv", "Did you mean --env"),
        ("--forget", "needs the name of a provider"),
        ("replicate --env --session", "in one place"),
        ("replicate 'r8_S3cretLooking", "without quotes"),
    ],
)
def test_a_line_that_does_not_fit_is_one_line_and_shows_no_key(keyless, server, line, says):
    ran = keyless.run(f"%imgsetup {line}")
    assert not ran.ok
    assert says in ran.error
    assert len(ran.error.splitlines()) <= 2, ran.error
    assert "S3cret" not in ran.error
    assert "12345678" not in ran.error
    assert not server.requests


def test_a_variable_names_its_provider(keyless):
    assert (
        "There is no key of replicate" in keyless.run("%imgsetup REPLICATE_API_TOKEN --forget").text
    )
    assert "needs no key" in keyless.run("%imgsetup demo").text


def test_where_nobody_can_be_asked_one_line_says_what_to_set(keyless, server):
    ran = keyless.run("%imgsetup replicate")
    assert ran.error_name == "KeyMissingError"
    assert "nobody can be asked" in ran.error
    assert "Set REPLICATE_API_TOKEN in the environment" in ran.error
    assert len(ran.error.splitlines()) == 2


def test_where_nobody_can_be_asked_a_key_that_is_there_is_enough(notebook):
    ran = notebook.run("%imgsetup replicate")
    assert ran.ok
    assert "has a key from the environment" in ran.text


def test_help_and_tab_know_it(keyless):
    assert "--forget" in keyless.run("%imgsetup --help").text
    assert (
        "%imgsetup PROVIDER" in keyless.run("%imgsetup?").reply["payload"][0]["data"]["text/plain"]
    )
    assert keyless.completions("%imgsetup repl") == ["replicate"]
    assert keyless.completions("%imgsetup replicate --e") == ["--env"]


def test_nothing_leaves_the_machine_when_offline(keyless, server):
    keyless.run("%config NbImg.offline = True")
    typed = typing(keyless, "%imgsetup replicate --session", server.token)
    assert "not tried: NbImg.offline" in typed.text
    assert not server.requests
    keyless.run("%config NbImg.offline = None")


def test_stop_while_a_key_is_asked_for_is_one_line(keyless, server):
    code = (
        "import getpass\n"
        "def stopped(prompt): raise KeyboardInterrupt\n"
        "getpass.getpass = stopped\n"
        "%imgsetup replicate"
    )
    ran = keyless.run(code)
    assert "Stopped." in ran.error
    assert len(ran.error.splitlines()) == 1
