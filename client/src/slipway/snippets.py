"""Code to copy: a request to a served model in curl, with this package, with Triton's own client. It runs as it is."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from slipway.predictions import Described
from slipway.tensors import BF16, DTYPES

LANGUAGES = ("curl", "python", "triton")
_SHORT = 64
"""Values that are written out; longer arrays are made where they are sent."""


def snippet(language: str, described: Described, *, url: str, reference: str | None) -> str:
    """Return the code for one of `LANGUAGES`. `url` is of the serving process, `reference` the version that is meant.

    The credential is taken from `SLIPWAY_TOKEN`, never written into the code.
    """
    makers = {"curl": _curl, "python": _python, "triton": _triton}
    return makers[language](described, url, reference)


def _curl(described: Described, url: str, reference: str | None) -> str:
    version = "" if reference is None else f"/versions/{quote(reference, safe='')}"
    address = shlex.quote(f"{url}/v2/models/{quote(described.model)}{version}/infer")
    inputs = _inputs(described)
    send = 'curl -sS -H "Authorization: Bearer $SLIPWAY_TOKEN" -H "Content-Type: application/json" \\\n'
    if all(len(one["data"]) <= _SHORT for one in inputs):
        return f"{send}  -d {shlex.quote(json.dumps({'inputs': inputs}))} \\\n  {address}\n"
    made = ", ".join(
        f'{{"name": {json.dumps(one["name"])}, "datatype": "{one["datatype"]}", "shape": {one["shape"]}, '
        f'"data": [{_literal(one["data"])}] * {math.prod(one["shape"])}}}'
        for one in inputs
    )
    program = f'import json; print(json.dumps({{"inputs": [{made}]}}))'
    return f"python3 -c {shlex.quote(program)} |\n{send}  -d @- {address}\n"


def _python(described: Described, url: str, reference: str | None) -> str:  # noqa: ARG001 - the client finds it
    meant = described.model if reference is None else f"{described.model}@{reference}"
    lines = ["import numpy as np", "from slipway import Client", "", "with Client() as slipway:", "    inputs = {"]
    lines += [f"        {one['name']!r}: {_array(one)}," for one in _inputs(described)]
    lines += ["    }", f"    answer = slipway.predict({meant!r}, inputs)"]
    return "\n".join([*lines, "    print(answer.outputs, answer.version, answer.receipt)", ""])


def _triton(described: Described, url: str, reference: str | None) -> str:
    parts = urlsplit(url)
    secure = ", ssl=True" if parts.scheme == "https" else ""
    given = _inputs(described)
    half = ["import ml_dtypes"] if any(one["datatype"] == BF16 for one in given) else []
    lines = ["import os", "", *half, "import numpy as np", "import tritonclient.http as triton", ""]
    lines += [f"client = triton.InferenceServerClient({f'{parts.netloc}{parts.path}'!r}{secure})", "inputs = []"]
    for one in given:
        lines.append(f"inputs.append(triton.InferInput({one['name']!r}, {one['shape']}, {one['datatype']!r}))")
        lines.append(f"inputs[-1].set_data_from_numpy({_array(one, half='ml_dtypes.bfloat16')})")
    lines.append('headers = {"Authorization": f"Bearer {os.environ[\'SLIPWAY_TOKEN\']}"}')
    version = "" if reference is None else f", model_version={reference!r}"
    lines.append(f"answer = client.infer({described.model!r}, inputs{version}, headers=headers)")
    lines += [f"print(answer.as_numpy({one.name!r}))" for one in described.outputs]
    return "\n".join([*lines, ""])


def _inputs(described: Described) -> list[Mapping[str, Any]]:
    """An example that the server itself gives: each input with its shape and flat data, all of one value."""
    return list(described.examples["v2"]["inputs"])


def _array(one: Mapping[str, Any], half: str = "np.float32") -> str:
    """`half` is what numbers of the one type are made of that numpy does not have."""
    kinds = {"BYTES": "object", "BOOL": "np.bool_", BF16: half}
    kind = kinds.get(one["datatype"]) or f"np.{DTYPES[one['datatype']]}"
    return f"np.full({tuple(one['shape'])}, {_literal(one['data'])}, {kind})"


def _literal(data: Any) -> str:
    """The value that the example repeats, as Python writes it."""
    return repr(data[0]) if data else "0"
