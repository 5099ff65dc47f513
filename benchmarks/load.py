"""What `%load_ext nbimg` costs, beside `import replicate`, each in a fresh IPython.

python benchmarks/load.py [--runs 9]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

SHELL = "from IPython.core.interactiveshell import InteractiveShell as S\nshell = S.instance()\n"
TIMED = "import time, asyncio\nt = time.process_time()\n{work}\nprint(time.process_time() - t)\n"
OURS = SHELL + TIMED.format(work="shell.run_line_magic('load_ext', 'nbimg')")
THEIRS = SHELL + TIMED.format(work="import replicate")


def cpu_s(script: str) -> float:
    """Return the processor seconds that a script prints."""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    return float(out.split()[-1])


def main() -> None:
    """Run both in turn and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    pairs = [(cpu_s(OURS), cpu_s(THEIRS)) for _ in range(runs + 1)][1:]
    ours = statistics.median(pair[0] for pair in pairs)
    theirs = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
    print(f"%load_ext nbimg   {ours * 1000:7.1f} ms of processor time (median of {runs})")
    print(f"import replicate  {theirs * 1000:7.1f} ms")
    print(f"ratio             {ratio:7.2f}   (wanted: below 0.33)")


if __name__ == "__main__":
    main()
