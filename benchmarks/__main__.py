"""`python -m benchmarks [NAME…] [--json]`: run every benchmark here, or the named ones, and print what they measured.

Each is a module with `main()`, which answers with figures by name or with a table to show as it is. Run them inside the stack: `make bench`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path


def main() -> None:
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    found = sorted(
        m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.ispkg and m.name != "__main__"
    )
    unknown = sorted(set(names) - set(found))
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(found)}")
    results = {}
    for name in names or found:
        print(f"measuring {name} …", file=sys.stderr)
        results[name] = importlib.import_module(f"benchmarks.{name}").main()
    if "--json" in sys.argv:
        print(json.dumps(results, indent=2))
        return
    for name, figures in results.items():
        print(f"\n{name}")
        if isinstance(figures, str):
            print(figures)
            continue
        for figure, value in figures.items():
            print(f"  {figure:<44} {value}")


if __name__ == "__main__":
    main()
