"""Where a credential comes from, which one wins, and what is said when there is none."""

import copy
import pickle
import sys
import threading
import types
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest

import nbimg
from nbimg.concurrency import semaphore
from nbimg.credentials import vault
from nbimg.credentials.given import PROVIDER_KEYS, account, given, read_credentials
from nbimg.credentials.keys import Keys, Secret, redact
from nbimg.engine.limits import Limits
from nbimg.errors import (
    InputError,
    KeyMissingError,
    NbimgError,
    OptionError,
    SettingError,
    UnknownNameError,
)
from nbimg.testing import Fault, ReplicateServer

KEY = "r8-planted-0123456789"
PAIR = {"HUNYUAN_SECRET_ID": "id-planted-01", "HUNYUAN_SECRET_KEY": "key-planted-01"}


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring that lasts as long as a test, and counts how often it is asked."""

    priority = 1

    def __init__(self):
        super().__init__()
        self.kept, self.asked, self.locked = {}, 0, False

    def get_password(self, service, username):
        self.asked += 1
        if self.locked:
            raise keyring.errors.KeyringLocked("nobody is there to open it")
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self.kept[service, username] = password

    def delete_password(self, service, username):
        del self.kept[service, username]


@pytest.fixture
def memory():
    before, own = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(own)
    yield own
    keyring.set_keyring(before)


@pytest.fixture
def colab(monkeypatch):
    """Colab's secrets, as a dict; what is not in there raises as Colab's own does."""
    kept, asked_in = {}, set()

    def get(key):
        asked_in.add(threading.current_thread())
        if key not in kept:
            raise RuntimeError(f"Secret {key} does not exist.")
        return kept[key]

    userdata = types.ModuleType("google.colab.userdata")
    userdata.get = get
    for name, module in [
        ("google", types.ModuleType("google")),
        ("google.colab", types.ModuleType("google.colab")),
        ("google.colab.userdata", userdata),
    ]:
        monkeypatch.setitem(sys.modules, name, module)
    yield kept
    assert asked_in <= {threading.main_thread()}


# ------------------------------------------------------------------ which one wins


def test_the_first_place_that_has_a_key_wins(memory, colab):
    environ = {}
    keys = Keys(environ)

    def found():
        keys.gather(anew=True)
        return keys.need("replicate").reveal(), keys.place("replicate")

    Path(".env").write_text(f"REPLICATE_API_TOKEN={KEY}-file\n")
    assert found() == (f"{KEY}-file", ".env")
    environ["REPLICATE_API_TOKEN"] = f" {KEY}-environment\n"
    assert found() == (f"{KEY}-environment", "the environment")
    colab["REPLICATE_API_TOKEN"] = f"{KEY}-colab"
    assert found() == (f"{KEY}-colab", "Colab's secrets")
    memory.kept["nbimg", "REPLICATE_API_TOKEN"] = f"{KEY}-keyring"
    assert found() == (f"{KEY}-keyring", "the keyring")
    keys.remember("REPLICATE_API_TOKEN", f"{KEY}-session")
    assert found() == (f"{KEY}-session", "this session")
    with given(read_credentials({"replicate": f"{KEY}-call"})):
        assert found() == (f"{KEY}-call", "the call")
    assert keys.forget("REPLICATE_API_TOKEN")
    assert not keys.forget("REPLICATE_API_TOKEN")
    assert found() == (f"{KEY}-keyring", "the keyring")


def test_a_change_of_the_file_is_seen_at_once():
    keys = Keys({})
    assert keys.find("replicate") is None
    for number in range(3):
        Path(".env").write_text(f"REPLICATE_API_TOKEN={KEY}-{'x' * number}\n")
        assert keys.need("replicate").reveal() == f"{KEY}-{'x' * number}"
    Path(".env").unlink()
    assert keys.find("replicate") is None


def test_a_file_of_windows_is_read_and_one_that_is_no_text_is_named():
    Path(".env").write_bytes(b"\xef\xbb\xbfREPLICATE_API_TOKEN=" + KEY.encode() + b"\r\n")
    assert Keys({}).need("replicate").reveal() == KEY
    Path(".env").write_bytes("REPLICATE_API_TOKEN=abc".encode("utf-16"))
    with pytest.raises(SettingError, match=r"\.env is not UTF-8"):
        Keys({}).need("replicate")


def test_all_parts_of_a_credential_come_from_one_place_where_one_has_them():
    Path(".env").write_text("HUNYUAN_API_KEY=api-planted-01\nHUNYUAN_SECRET_ID=stray\n")
    keys = Keys(dict(PAIR))
    found = {name: part.reveal() for name, part in keys.parts("hunyuan").items()}
    assert found == PAIR, "though the file has the better way, and a part"
    assert Keys({}).place("hunyuan") == ".env"


def test_parts_from_several_places_are_put_together():
    Path(".env").write_text("HUNYUAN_SECRET_KEY=key-planted-01\n")
    keys = Keys({"HUNYUAN_SECRET_ID": "id-planted-01"})
    assert {name: part.reveal() for name, part in keys.parts("hunyuan").items()} == PAIR
    assert keys.place("hunyuan") == "several places"


# ------------------------------------------------------------------ none


def test_no_key_anywhere_says_where_one_is_looked_for():
    assert Keys({}).find("replicate") is None
    assert Keys({}).place("replicate") is None
    with pytest.raises(KeyMissingError, match=r"%imgsetup replicate .*REPLICATE_API_TOKEN"):
        Keys({}).need("replicate")


def test_half_a_credential_says_which_part_is_missing():
    with pytest.raises(KeyMissingError, match="SPEEDPIX_APP_SECRET is missing beside SPEEDPIX_AP"):
        Keys({"SPEEDPIX_APP_KEY": "1234"}).need("speedpix")


def test_a_key_that_no_header_can_carry_is_said_by_its_name_and_place():
    keys = Keys({"REPLICATE_API_TOKEN": "r8-ключ-0000"})
    with pytest.raises(SettingError, match=r"REPLICATE_API_TOKEN \(the environment\)") as caught:
        keys.find("replicate")
    assert "ключ" not in str(caught.value)
    assert keys.place("replicate") == "the environment"


# ------------------------------------------------------------------ keyring and Colab


def test_the_keyring_is_asked_once_and_again_only_for_what_was_missed(memory):
    keys = Keys({})
    variables = sum(len(way) for ways in PROVIDER_KEYS.values() for way in ways)
    keys.gather()
    assert memory.asked == variables
    keys.gather()
    assert memory.asked == variables
    memory.kept["nbimg", "REPLICATE_API_TOKEN"] = KEY
    assert keys.find("replicate") is None, "not on the loop, where it may not be asked"
    keys.gather()
    assert memory.asked == variables + 1
    assert keys.find("replicate") == Secret(KEY)


def test_a_keyring_that_is_locked_is_one_that_has_nothing(memory):
    memory.locked = True
    keys = Keys({"REPLICATE_API_TOKEN": KEY})
    keys.gather()
    assert keys.place("replicate") == "the environment"


def test_a_call_from_another_thread_leaves_colab_alone(colab):
    colab["REPLICATE_API_TOKEN"] = KEY
    keys = Keys({})
    beside = threading.Thread(target=keys.gather)
    beside.start()
    beside.join()
    assert keys.find("replicate") is None
    keys.gather()
    assert keys.place("replicate") == "Colab's secrets"


def test_without_the_package_there_is_no_keyring(monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert vault.keyring() is None
    assert vault.places() == {}


def test_a_key_of_the_keyring_is_used_by_a_call(server, memory, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    memory.kept["nbimg", "REPLICATE_API_TOKEN"] = server.token
    assert nbimg.generate("a cat", model="flux-dev").paths


# ------------------------------------------------------------------ given with the call


def test_the_key_of_a_call_is_used_for_it_alone(server, monkeypatch):
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8-another-account-00")
    own = {"replicate": server.token}
    assert nbimg.generate("a cat", model="flux-dev", credentials=own).paths
    assert nbimg.edit(nbimg.generate("a", credentials=own).paths, "b", credentials=own).paths
    assert nbimg.batch(["a", "b"], credentials=own).ok
    with pytest.raises(NbimgError, match="does not accept the key"):
        nbimg.generate("a cat", model="flux-dev", fallback=())


def test_the_key_of_a_call_chooses_the_model_and_is_used_for_what_failed(server, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    server.inject(Fault("error", "POST", "*/predictions", status=422))
    (result,) = nbimg.generate(["a cat"], credentials={"replicate": server.token}, fallback=())
    assert result.model.startswith("replicate:")
    failed = nbimg.generate(["a"], credentials={"replicate": server.token})
    assert failed.ok
    server.inject(Fault("error", "POST", "*/predictions", status=422))
    failed = nbimg.generate(["a"], credentials={"replicate": server.token}, fallback=())
    assert failed.failed
    assert failed.retry_failed().ok


def test_calls_at_the_same_time_keep_their_keys_apart(monkeypatch):
    with ReplicateServer(token="r8-first-0123456789") as one:
        monkeypatch.setenv("NBIMG_REPLICATE_BASE_URL", one.base_url)
        monkeypatch.setenv("REPLICATE_API_TOKEN", one.token)
        jobs = [
            nbimg.submit(["a cat"], model="flux-dev", fallback=(), credentials={"replicate": key})
            for key in (one.token, "r8-second-0123456789") * 3
        ]
        assert [bool(job.wait().ok) for job in jobs] == [True, False] * 3


def test_what_was_left_is_fetched_with_the_key_that_it_is_given(server, monkeypatch):
    own = {"replicate": server.token}
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8-another-account-00")
    server.inject(Fault("html", "GET", "/v1/predictions/*", times=2))
    job = nbimg.submit(["a cat"], model="flux-dev", credentials=own, retries=2)
    assert job.wait().failed
    (later,) = nbimg.resume(job.id, credentials=own)
    assert later.images
    assert len(server.jobs) == 1


def test_a_call_with_its_own_key_is_another_account(server, monkeypatch):
    monkeypatch.setenv("NBIMG_REPLICATE_CONCURRENCY", "3")
    nbimg.generate("a cat", model="flux-dev", credentials={"replicate": server.token})
    (name,) = [name for name in semaphore.semaphores() if name.startswith("replicate")]
    assert name.startswith("replicate/")
    assert server.token not in name
    assert semaphore.semaphores()[name].limit == 3, "the settings of the provider hold for it"
    nbimg.generate("a cat", model="flux-dev")
    assert "replicate" in semaphore.semaphores()


def test_an_account_has_the_name_of_its_provider_unless_the_call_has_a_key_for_it():
    assert account("replicate") == "replicate"
    with given(read_credentials({"replicate": KEY})):
        own = account("replicate")
        assert account("openai") == "openai"
        assert own == account("replicate")
    with given(read_credentials({"replicate": KEY + "x"})):
        assert account("replicate") != own
    with given({}):
        assert account("replicate") == "replicate"


def test_limits_of_the_provider_hold_for_each_of_its_accounts():
    from nbimg.config import Settings

    limits = Limits(Settings({"NBIMG_REPLICATE_CONCURRENCY": "2"}))
    assert limits.lane("replicate/0a1b2c3d", 8, {}).limit == 2


def test_a_model_that_was_refused_to_one_key_is_not_left_out_for_the_next(server, monkeypatch):
    server.inject(Fault("error", "POST", "*/predictions", status=401, times=4))
    assert len(nbimg.generate(["a"] * 3, model="flux-dev", fallback=()).failed) == 3
    assert nbimg.generate(["a"], model="flux-dev", fallback=()).failed
    assert server.count("POST", "*/predictions") == 4  # a new call tries once
    server.token = "r8-another-0123456789"
    monkeypatch.setenv("REPLICATE_API_TOKEN", server.token)
    assert nbimg.generate(["a"], model="flux-dev", fallback=()).ok


@pytest.mark.parametrize(
    ("credentials", "error", "says"),
    [
        (KEY, OptionError, "is a dict"),
        ({"replicat": KEY}, UnknownNameError, "Did you mean replicate"),
        ({"replicate": ""}, OptionError, "REPLICATE_API_TOKEN .* is empty"),
        ({"replicate": None}, OptionError, "the credential of replicate is REPLICATE_API_TOKEN"),
        ({"replicate": {"REPLICATE_API_TOKEN": None}}, OptionError, "is empty"),
        ({"replicate": {"REPLICATE_TOKEN": KEY}}, UnknownNameError, "REPLICATE_API_TOKEN"),
        ({"speedpix": KEY}, OptionError, "SPEEDPIX_APP_KEY and SPEEDPIX_APP_SECRET"),
        ({"hunyuan": {"HUNYUAN_SECRET_ID": KEY}}, OptionError, "all of it"),
        ({"replicate": KEY + "ключ"}, SettingError, "REPLICATE_API_TOKEN"),
        ({KEY: "replicate"}, InputError, "There are replicate, openai"),
        ({"replicate": {KEY: "x"}}, InputError, "no variable"),
    ],
)
def test_what_is_wrong_with_given_credentials_is_said_without_showing_them(
    credentials, error, says
):
    with pytest.raises(error, match=says) as caught:
        nbimg.submit("a cat", credentials=credentials)
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value)


def test_a_single_key_is_that_of_the_way_that_has_one_part():
    assert read_credentials({"hunyuan": KEY}) == {"HUNYUAN_API_KEY": Secret(KEY)}
    assert read_credentials({"hunyuan": PAIR}).keys() == PAIR.keys()


def test_a_task_has_no_credentials_of_its_own():
    with pytest.raises(NbimgError, match="credentials") as caught:
        nbimg.submit([{"prompt": "a cat", "credentials": {"replicate": KEY}}])
    assert KEY not in str(caught.value)


# ------------------------------------------------------------------ a secret


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r:>40}".format, lambda s: f"{s:>9}"])
def test_a_secret_shows_itself_as_dots(show):
    assert KEY not in show(Secret(KEY))
    assert "•••" in show(Secret(KEY))


@pytest.mark.parametrize("write", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_secret_is_not_written_to_disk(write):
    with pytest.raises(TypeError, match="not written"):
        write(Secret(KEY))


def test_every_secret_that_was_seen_is_taken_out_of_a_text():
    Secret(KEY)
    Secret(KEY + "-longer\n")
    assert redact(f"a {KEY} b {KEY}-longer c") == "a ••• b ••• c"


@pytest.mark.parametrize(
    "value", ["r8-ключ-0000", "r8-“quoted”", "r8-two\nlines-000", "r8-null\0-000"]
)
def test_a_key_that_no_header_can_carry_is_said_without_showing_it(value):
    with pytest.raises(SettingError) as caught:
        Secret(value)
    assert value not in str(caught.value)


def test_secrets_are_equal_by_value():
    assert Secret(KEY) == Secret(f" {KEY} ")
    assert len({Secret(KEY), Secret(KEY)}) == 1
    assert Secret(KEY) != KEY
    assert not Secret(" ")
