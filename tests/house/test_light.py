import json
import subprocess
import sys

from tests.house.layers import HEAVY

SCRIPT = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "nbimg")
assert "imggen" in shell.magics_manager.magics["cell"]
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_load_ext_imports_nothing_heavy(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "nbimg.notebook.magics" in loaded
    assert [name for name in loaded if name.split(".")[0] in HEAVY] == []
