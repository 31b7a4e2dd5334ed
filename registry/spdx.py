"""Licence expressions as SPDX writes them. Pure; what a licence allows is not this module's business.

Source: https://spdx.github.io/spdx-spec/v3.0.1/annexes/spdx-license-expressions/
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from license_expression import Licensing

_OWN = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+", re.ASCII)
_LONGEST = 256


def canonical(text: str) -> str:
    """The expression with every licence in its SPDX spelling: `apache-2.0` → `Apache-2.0`, `GPL-3.0` → `GPL-3.0-only`.

    `LicenseRef-…` names a licence that is not in the list. Raises `ValueError`, with what may have been meant.
    """
    from license_expression import ExpressionError

    if len(text) > _LONGEST:
        raise ValueError(f"has more than {_LONGEST} characters")
    licensing = _licensing()
    try:
        parsed = licensing.parse(text, strict=True)
        symbols = licensing.license_symbols(parsed)
    except (ExpressionError, AttributeError, IndexError) as error:  # `MIT AND` and `()` trip the library itself
        raise ValueError("is not an SPDX licence expression such as Apache-2.0 or MIT OR GPL-3.0-only") from error
    if parsed is None:
        raise ValueError("names no licence")
    for symbol in symbols:
        if symbol.key not in licensing.known_symbols and not _OWN.fullmatch(symbol.key):
            raise ValueError(_unknown(symbol.key))
    return str(parsed.render())


def _unknown(key: str) -> str:
    known = {each.lower(): each for each in _licensing().known_symbols if not _OWN.fullmatch(each)}
    wanted = re.sub(r"[\s_]+", "-", key.lower())
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.75)
    own = re.sub(r"[^A-Za-z0-9.-]+", "-", key).strip("-") or "mine"
    meant = f"did you mean {' or '.join(known[each] for each in near)}? " if near else ""
    return f"{key!r} is not in the SPDX list; {meant}For a licence of your own write LicenseRef-{own}"


@cache
def _licensing() -> Licensing:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()
