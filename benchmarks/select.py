"""`python benchmarks/select.py` runs selection.py.

Scripts of this folder that import Python's own `select` (subprocess does) find this file first: it hands them that.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
found_here = sys.path[:]
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != FOLDER]

if __name__ == "__main__":
    import runpy

    sys.argv[0] = str(FOLDER / "selection.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    del sys.modules["select"]
    import select  # noqa: F401

    sys.path[:] = found_here
