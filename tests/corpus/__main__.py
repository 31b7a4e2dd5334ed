"""`python -m tests.corpus FOLDER` writes every sample; `--judge [WORD …]` judges them (all, or those named so).

`--prove [WORD …]` sets off those that claim to act, and says which did not.

The proof runs hostile files for real, in child processes: their worst is an empty file in the temporary folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from pipeline.readers import examine
from tests.corpus import CANARY, benign, hostile

_LOADERS = {
    "pickle": "import pickle; pickle.load(open(path, 'rb'))",
    "pickles": "import pickle; f = open(path, 'rb')\nwhile f.peek(1): pickle.load(f)",
    "joblib": "import joblib; joblib.load(path)",
    "numpy": "import numpy; x = numpy.load(path, allow_pickle=True); [x[n] for n in getattr(x, 'files', [])]",
    "torch": "import torch; torch.load(path, weights_only=False)",
    "jit": "import torch; torch.jit.load(path)",
    "export": "import torch; torch.export.load(path)",
    "yaml": "import yaml; list(yaml.unsafe_load_all(open(path)))",
}


def main() -> int:
    match sys.argv[1:]:
        case ["--prove", *only]:
            return prove(only)
        case ["--judge", *only]:
            return judge(only)
        case [folder]:
            for kind, samples in (("hostile", hostile()), ("benign", benign())):
                for number, sample in enumerate(samples):
                    place = Path(folder) / kind / f"{number:03}"
                    place.mkdir(parents=True)
                    (place / "NAME").write_text(f"{sample.name}\n{sample.why}\n")
                    sample.write(place)
            return 0
    print(__doc__)
    return 2


def judge(only: list[str]) -> int:
    wrong = 0
    for bad, samples in ((True, hostile()), (False, benign())):
        verdicts: Counter[str] = Counter()
        for sample in samples:
            if only and not any(word in sample.name for word in only):
                continue
            with tempfile.TemporaryDirectory() as folder:
                answer = examine(str(sample.write(Path(folder))), sample.filename)
            verdicts[answer["verdict"]] += 1
            if (answer["verdict"] == "clean") == bad:
                wrong += 1
                print(f"{answer['verdict']}: {sample.name}: {sample.why}")
                for finding in answer["findings"][:3]:
                    print(f"    {finding['rule']} {finding['path']}: {finding['message']}")
        print("hostile" if bad else "benign", dict(verdicts))
    return 1 if wrong else 0


def prove(only: list[str]) -> int:
    acted = idle = 0
    for sample in hostile():
        if sample.loader is None or (only and not any(word in sample.name for word in only)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = sample.write(Path(folder))
            code = f"path = {str(path)!r}\n{_LOADERS[sample.loader]}"
            try:
                done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
                said = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
            except subprocess.TimeoutExpired:
                said = ["ran for a minute"]
        if CANARY.exists():
            acted += 1
            shutil.rmtree(CANARY) if CANARY.is_dir() else CANARY.unlink()
        else:
            idle += 1
            print(f"idle: {sample.name}: {said[0][:200]}")
    print(f"{acted} acted, {idle} did not")
    return 1 if idle else 0


if __name__ == "__main__":
    sys.exit(main())
