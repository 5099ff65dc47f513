"""A planted key is in no output and in no notebook: a kernel in which all goes well, and then nothing."""

from __future__ import annotations

import json

import pytest

from nbimg.testing import Fault
from tests.credentials.test_secrets import PROVIDERS, TELLING, planted

CELLS = (
    "%%imggen -m {model} --no-fallback --no-cache\na red house",
    "r = %imggen -m {model} --no-fallback -n 2 a blue house",
    "r",
    "%imgsetup",
    "%imgsetup {provider}",
    "%imgmodels",
    "%imgmodels {model}",
    "%imgjobs",
    "%config NbImg",
    "import nbimg, sys; nbimg.about()",
    "nbimg.session.default().keys, vars(nbimg.session.default().keys)",
    "vars(nbimg.session.default())",
    "nbimg.generate('x', credentials={{'{provider}': 'x y', 'nobody': 'z'}})",
)
FAILING = (
    "%%imggen -m {model} --no-fallback --no-cache --debug --retries 1\na red house",
    "%%imggen -m {model} --no-fallback --no-cache --debug --retries 1 -n 3\na {{red|blue}} house",
    "nbimg.generate('a red house', model='{model}', fallback=(), retries=1)",
    "%tb",
    "sys.last_value, sys.last_value.__cause__, sys.last_value.__context__, vars(sys.last_value)",
    "sys.last_value.result",
    "%xmode Verbose",
    "nbimg.generate('a red house', model='{model}', fallback=(), retries=1)",
    "%tb",
    "import traceback; traceback.print_exception(sys.last_value)",
    "%xmode Context",
)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_planted_key_is_in_no_output_and_in_no_notebook(kernel, tmp_path, name):
    one = planted()[name]
    names = {"model": one.model, "provider": one.provider}
    with one.make() as server:
        kernel.begin(tmp_path, one.variables(server.base_url))
        try:
            ran = [kernel.run(cell.format(**names)) for cell in CELLS]
            assert ran[0].ok, ran[0].error
            assert "key from the environment" in ran[3].text
            server.inject(Fault("error", *one.create, status=401, times=None))
            failed = [kernel.run(cell.format(**names)) for cell in FAILING]
            assert not failed[0].ok
            assert "Traceback" in failed[0].error
        finally:
            gone = [*one.environ, *one.keys]
            kernel.run(f"import os; [os.environ.pop(name, None) for name in {gone!r}];")
    places = {
        path.name: path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*.sqlite3*")
    }
    places["the notebook"] = kernel.save().read_text("utf-8")
    assert len(json.loads(places["the notebook"])["cells"]) > len(CELLS) + len(FAILING)
    for place, text in places.items():
        for value in one.keys.values():
            parts = (value[at : at + TELLING] for at in range(len(value) - TELLING + 1))
            assert not [part for part in parts if part in text], place
