"""The licences that Slipway knows, as data: what family each belongs to, and what it may be combined with.

Sources, read in November 2026: the FSF's list and compatibility matrix (https://www.gnu.org/licenses/license-list.html,
https://www.gnu.org/licenses/gpl-faq.html#AllCompatibility), the ASF on Apache-2.0 and the GPL
(https://www.apache.org/licenses/GPL-compatibility.html), Creative Commons on compatible licences and on adaptations
(https://creativecommons.org/share-your-work/licensing-considerations/compatible-licenses/), the appendix of EUPL-1.2,
and the texts of the model licences themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    PUBLIC_DOMAIN = "public-domain"
    PERMISSIVE = "permissive"
    WEAK_COPYLEFT = "weak-copyleft"
    STRONG_COPYLEFT = "strong-copyleft"
    NETWORK_COPYLEFT = "network-copyleft"
    SHARE_ALIKE = "share-alike"
    NON_COMMERCIAL = "non-commercial"
    NO_DERIVATIVES = "no-derivatives"
    BEHAVIOURAL = "behavioural"
    COMMUNITY = "community"
    SOURCE_AVAILABLE = "source-available"
    PROPRIETARY = "proprietary"


@dataclass(frozen=True, kw_only=True)
class Licence:
    """`gpl`: versions of the GNU GPL under which a work with it may go; of a GPL itself its own; None: nobody has said.

    `becomes`: other licences that a work made with it may carry, because its own text or its steward names them.
    `terms`: what somebody who uses it must know beyond what its family says.
    """

    id: str
    family: Family
    gpl: frozenset[int] | None = frozenset()
    becomes: frozenset[str] = frozenset()
    terms: str | None = None

    @property
    def is_gpl(self) -> bool:
        """Whether a project under it is a work under the GNU GPL or AGPL as a whole."""
        return self.id.startswith(("GPL-", "AGPL-3.0"))


BOTH, THREE, NEVER = frozenset({2, 3}), frozenset({3}), frozenset[int]()
UNSAID = None

_BY_FAMILY: Mapping[Family, Mapping[str, frozenset[int] | None]] = {
    Family.PUBLIC_DOMAIN: {"CC0-1.0": BOTH, "Unlicense": BOTH, "0BSD": BOTH, "WTFPL": BOTH, "PDDL-1.0": BOTH},
    Family.PERMISSIVE: {
        "MIT": BOTH,
        "MIT-0": BOTH,
        "X11": BOTH,
        "ISC": BOTH,
        "BSD-2-Clause": BOTH,
        "BSD-3-Clause": BOTH,
        "BSD-3-Clause-Clear": BOTH,
        "BSD-4-Clause": NEVER,  # its advertising clause
        "BSL-1.0": BOTH,  # Boost
        "NCSA": BOTH,
        "Zlib": BOTH,
        "Python-2.0": BOTH,
        "UPL-1.0": BOTH,
        "Artistic-2.0": BOTH,
        "PostgreSQL": UNSAID,
        "Apache-2.0": THREE,  # its patent clauses
        "ECL-2.0": THREE,
        "AFL-3.0": NEVER,
        "MS-PL": NEVER,
        "CC-BY-4.0": BOTH,
        "CC-BY-3.0": UNSAID,
        "CC-BY-2.0": NEVER,
        "CDLA-Permissive-1.0": UNSAID,
        "CDLA-Permissive-2.0": UNSAID,
        "OpenMDW-1.0": UNSAID,
        "OpenMDW-1.1": UNSAID,
    },
    Family.WEAK_COPYLEFT: {
        "LGPL-2.0-only": BOTH,
        "LGPL-2.0-or-later": BOTH,
        "LGPL-2.1-only": BOTH,
        "LGPL-2.1-or-later": BOTH,
        "LGPL-3.0-only": THREE,
        "LGPL-3.0-or-later": THREE,
        "MPL-2.0": BOTH,
        "MPL-2.0-no-copyleft-exception": NEVER,
        "MPL-1.1": NEVER,
        "EPL-1.0": NEVER,
        "EPL-2.0": NEVER,
        "CDDL-1.0": NEVER,
        "CDDL-1.1": NEVER,
    },
    Family.STRONG_COPYLEFT: {
        "GPL-2.0-only": frozenset({2}),
        "GPL-2.0-or-later": BOTH,
        "GPL-3.0-only": THREE,
        "GPL-3.0-or-later": THREE,
        "CECILL-2.1": BOTH,
    },
    Family.NETWORK_COPYLEFT: {
        "AGPL-3.0-only": THREE,
        "AGPL-3.0-or-later": THREE,
        "EUPL-1.2": BOTH,
        "OSL-3.0": NEVER,
    },
    Family.SHARE_ALIKE: {
        "CC-BY-SA-4.0": THREE,
        "CC-BY-SA-3.0": NEVER,
        "ODbL-1.0": NEVER,
        "CDLA-Sharing-1.0": NEVER,
    },
    Family.NON_COMMERCIAL: dict.fromkeys(
        ("CC-BY-NC-4.0", "CC-BY-NC-3.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-SA-3.0", "apple-amlr", "fair-noncommercial"),
        NEVER,
    ),
    Family.NO_DERIVATIVES: dict.fromkeys(("CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-ND-3.0"), NEVER),
    Family.BEHAVIOURAL: dict.fromkeys(
        (
            "openrail",
            "openrail++",
            "creativeml-openrail-m",
            "bigscience-openrail-m",
            "bigscience-bloom-rail-1.0",
            "bigcode-openrail-m",
        ),
        NEVER,
    ),
    Family.COMMUNITY: dict.fromkeys(("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma"), NEVER),
    Family.SOURCE_AVAILABLE: dict.fromkeys(("BUSL-1.1", "Elastic-2.0", "SSPL-1.0"), NEVER),
    Family.PROPRIETARY: {"Proprietary": NEVER},
}

_BECOMES: Mapping[str, tuple[str, ...]] = {
    "CC-BY-SA-3.0": ("CC-BY-SA-4.0",),
    "CC-BY-NC-3.0": ("CC-BY-NC-4.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
    "CC-BY-NC-4.0": ("CC-BY-NC-SA-4.0",),
    "CC-BY-NC-SA-3.0": ("CC-BY-NC-SA-4.0",),
    "EUPL-1.2": (
        *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
        *("MPL-2.0", "EPL-1.0", "OSL-3.0", "CECILL-2.1"),
    ),
    "CECILL-2.1": ("EUPL-1.2",),
}

_LLAMA = "It goes with its acceptable-use policy; who has more than 700 million monthly users needs a licence of Meta's own; "
_TERMS: Mapping[str, str] = {
    "llama2": f"{_LLAMA}its output must not improve other language models.",
    "llama3": f"{_LLAMA}say 'Built with Meta Llama 3'; its output must not improve other language models.",
    "llama3.1": f"{_LLAMA}say 'Built with Llama'; models made with it have a name that begins with Llama.",
    "llama3.2": f"{_LLAMA}say 'Built with Llama'; the multimodal ones are not licensed to people and firms in the EU.",
    "llama3.3": f"{_LLAMA}say 'Built with Llama'; models made with it have a name that begins with Llama.",
    "llama4": f"{_LLAMA}say 'Built with Llama'; it is not licensed to people and firms in the EU.",
    "gemma": "Its prohibited-use policy goes with it, also with models that were distilled from it.",
    "CC-BY-4.0": "Creative Commons does not recommend its licences for software; the model itself is no trouble.",
    "SSPL-1.0": "Who offers it as a service must publish all that the service runs on.",
}

LICENCES: Mapping[str, Licence] = {
    name: Licence(
        id=name,
        family=family,
        gpl=gpl,
        becomes=frozenset(_BECOMES.get(name, ())),
        terms=_TERMS.get(name),
    )
    for family, members in _BY_FAMILY.items()
    for name, gpl in members.items()
}

ALIASES: Mapping[str, str] = {name.lower(): name for name in LICENCES} | {
    **{f"{kind}-{number}": f"{kind.upper()}-{number}-only" for kind in ("gpl", "lgpl", "agpl") for number in ("3.0",)},
    **{
        f"{kind}-{number}+": f"{kind.upper()}-{number}-or-later"
        for kind in ("gpl", "lgpl", "agpl")
        for number in ("3.0",)
    },
    "gpl-2.0": "GPL-2.0-only",
    "gpl-2.0+": "GPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "lgpl-2.0": "LGPL-2.0-only",
    "lgpl-2.0+": "LGPL-2.0-or-later",
    "apache": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "mit license": "MIT",
    "the unlicense": "Unlicense",
    "bsd-2": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "cc0": "CC0-1.0",
    "openmdw": "OpenMDW-1.0",
    "open-mdw": "OpenMDW-1.0",
    "creativeml-openrail++-m": "openrail++",
    "bloom-rail-1.0": "bigscience-bloom-rail-1.0",
    "llama-2": "llama2",
    "llama-3": "llama3",
    "llama-3.1": "llama3.1",
    "llama-3.2": "llama3.2",
    "llama-3.3": "llama3.3",
    "llama-4": "llama4",
    "fair-noncommercial-research-license": "fair-noncommercial",
    "licenseref-proprietary": "Proprietary",
    "all rights reserved": "Proprietary",
}
"""Other ways to write them, in lower case: deprecated SPDX identifiers, those of model hubs, and what people write."""

LINKING_EXCEPTIONS = frozenset({"Classpath-exception-2.0", "GCC-exception-3.1", "GPL-3.0-linking-exception"})
"""With one of these the GPL lets works under any licence use it."""
GPL2_EXCEPTIONS = frozenset({"LLVM-exception"})
"""With one of these Apache-2.0 may also go into works under version 2 of the GPL."""
