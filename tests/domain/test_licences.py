"""Licences: what may go into what, and what a text says it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import licence_texts, licences
from registry.licence_list import ALIASES, LICENCES, Family
from registry.licences import Answer, Verdict, check, families, parse, written

YES, NO, UNKNOWN = Verdict.COMPATIBLE, Verdict.INCOMPATIBLE, Verdict.UNKNOWN
KNOWN = st.sampled_from(sorted(LICENCES))
NAMES = st.sampled_from([*sorted(LICENCES), "other", "LicenseRef-ours"])
EXPRESSIONS = st.recursive(
    NAMES, lambda part: st.builds("({} {} {})".format, part, st.sampled_from(["AND", "OR"]), part), max_leaves=5
)


def ask(project: str, model: str) -> Answer:
    return check(project=parse(project), model=parse(model))


@pytest.mark.parametrize(
    ("project", "model", "verdict"),
    [
        # The GNU GPL takes in what is permissive; nothing permissive takes in the GNU GPL.
        ("GPL-3.0", "MIT", YES),
        ("MIT", "GPL-3.0", NO),
        ("GPL-3.0-only", "Apache-2.0", YES),
        ("GPL-2.0-only", "Apache-2.0", NO),
        ("GPL-2.0-or-later", "Apache-2.0", YES),
        ("GPL-2.0-only", "Apache-2.0 WITH LLVM-exception", YES),
        ("GPL-2.0-only", "GPL-3.0-or-later", NO),
        ("GPL-3.0-only", "GPL-2.0-only", NO),
        ("GPL-3.0-only", "GPL-2.0-or-later", YES),
        ("GPL-3.0-only", "AGPL-3.0-only", YES),
        ("AGPL-3.0-only", "GPL-3.0-only", YES),
        ("Apache-2.0", "AGPL-3.0", NO),
        ("GPL-2.0-only", "LGPL-3.0-only", NO),
        ("GPL-2.0-only", "LGPL-2.1", YES),
        ("MIT", "LGPL-2.1", YES),
        ("Apache-2.0", "MPL-2.0", YES),
        ("GPL-3.0", "EPL-2.0", NO),
        ("EUPL-1.2", "GPL-3.0", YES),
        ("GPL-2.0", "EUPL-1.2", YES),
        ("MIT", "EUPL-1.2", NO),
        ("MIT", "GPL-2.0-only WITH Classpath-exception-2.0", YES),
        ("MIT", "GPL-2.0-only WITH Bison-exception-2.2", UNKNOWN),
        # Creative Commons
        ("MIT", "CC-BY-4.0", YES),
        ("GPL-3.0-only", "CC-BY-SA-4.0", YES),
        ("GPL-2.0-only", "CC-BY-SA-4.0", NO),
        ("Apache-2.0", "CC-BY-SA-4.0", NO),
        ("MIT", "CC-BY-NC-4.0", NO),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", YES),
        ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", NO),
        ("Proprietary", "CC-BY-NC-4.0", UNKNOWN),
        ("CC-BY-4.0", "CC0-1.0", YES),
        # Models
        ("Apache-2.0", "llama3.1", YES),
        ("Proprietary", "gemma", YES),
        ("GPL-3.0-only", "llama2", NO),
        ("MIT", "bigscience-bloom-rail-1.0", YES),
        ("AGPL-3.0-only", "creativeml-openrail-m", NO),
        ("Apache-2.0", "OpenMDW-1.0", YES),
        ("GPL-3.0-only", "OpenMDW-1.0", UNKNOWN),
        # What belongs to somebody
        ("MIT", "Proprietary", NO),
        ("Proprietary", "Proprietary", UNKNOWN),
        ("Proprietary", "MIT", YES),
        ("Apache-2.0", "BSL-1.0", YES),
        ("Apache-2.0", "BUSL-1.1", NO),
        # Choices
        ("GPL-2.0-only", "MIT OR Apache-2.0", YES),
        ("GPL-2.0-only", "MIT AND Apache-2.0", NO),
        ("MIT OR GPL-3.0-only", "GPL-3.0-only", YES),
        ("MIT AND GPL-3.0-only", "GPL-3.0-only", NO),
    ],
)
def test_the_question_has_a_direction(project: str, model: str, verdict: Verdict) -> None:
    answer = ask(project, model)
    assert answer.verdict is verdict, answer
    assert answer.reason.endswith(".")


def test_a_choice_that_is_bound_by_the_model_is_told() -> None:
    assert ask("MIT OR GPL-3.0-only", "GPL-3.0-only").warnings[0].endswith("the whole goes under GPL-3.0-only alone.")
    assert "version 3" in ask("GPL-2.0-or-later", "Apache-2.0").warnings[0]
    assert any("use restrictions" in warning for warning in ask("MIT", "llama3").warnings)


@given(KNOWN)
def test_a_project_may_use_what_is_under_its_own_licence_unless_that_belongs_to_somebody(name: str) -> None:
    owned = LICENCES[name].family in (Family.PROPRIETARY, Family.SOURCE_AVAILABLE)
    assert ask(name, name).verdict is (UNKNOWN if owned else YES)


@given(NAMES, NAMES, NAMES, st.booleans())
def test_or_takes_the_best_and_and_needs_all(one: str, other: str, third: str, of_the_model: bool) -> None:
    def asked(expression: str) -> Verdict:
        return ask(third, expression).verdict if of_the_model else ask(expression, third).verdict

    apart = (asked(one), asked(other))
    assert asked(f"{one} OR {other}") == max(apart)
    assert asked(f"{one} AND {other}") == min(apart)


@given(EXPRESSIONS, st.sampled_from(["other", "LicenseRef-ours"]))
def test_what_is_not_known_never_becomes_compatible(expression: str, unknown: str) -> None:
    for project, model in ((expression, unknown), (unknown, expression), (unknown, unknown)):
        assert ask(project, model).verdict is not YES
    assert ask(expression, f"({expression}) AND {unknown}").verdict is not YES


@given(KNOWN, KNOWN)
def test_public_domain_goes_everywhere_and_no_further_terms_go_under_the_gpl(project: str, model: str) -> None:
    if LICENCES[model].family is Family.PUBLIC_DOMAIN:
        assert ask(project, model).verdict is YES
    if LICENCES[project].is_gpl and LICENCES[model].family in (Family.COMMUNITY, Family.NON_COMMERCIAL):
        assert ask(project, model).verdict is NO


@given(EXPRESSIONS)
def test_what_is_written_reads_back(expression: str) -> None:
    read = parse(expression)
    assert written(parse(written(read))) == written(read)
    assert families(read)


@given(st.text(max_size=60) | st.text("MITORAND()WH+-. 20", max_size=30))
def test_text_that_is_no_expression_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "SPDX" in str(error)  # noqa: PT017 - whatever is refused says so


@pytest.mark.parametrize(
    ("said", "name"),
    [("apache 2.0", "Apache-2.0"), ("GPL-2.0+", "GPL-2.0-or-later"), ("mit", "MIT"), ("LLAMA-3.1", "llama3.1")],
)
def test_people_s_names_for_licences_are_understood(said: str, name: str) -> None:
    assert written(parse(said)) == name


def test_every_name_leads_to_a_licence() -> None:
    assert set(ALIASES.values()) == set(LICENCES)
    for licence in LICENCES.values():
        assert licence.becomes <= set(LICENCES), licence.id


MIT = """The MIT License (MIT)

Copyright (c) 2024 Ada Lovelace

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
BSD = """Copyright 2023, The Sorters. All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the following
conditions are met:

* Redistributions of source code must retain the above copyright notice, this list of conditions and the following disclaimer.
* Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
  disclaimer in the documentation and/or other materials provided with the distribution.
* Neither the name of The Sorters nor the names of its contributors may be used to endorse or promote products derived from
  this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE SORTERS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE SORTERS BE
LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY
THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT
OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def test_a_text_is_recognised_word_for_word() -> None:
    assert licence_texts.identify(MIT) == "MIT"
    assert licence_texts.identify(MIT.replace("\n", "\r\n   ").partition("Ada Lovelace")[2]) == "MIT"
    assert licence_texts.identify(BSD) == "BSD-3-Clause"
    apache = (Path(__file__).parents[2] / "LICENSE").read_text()
    assert licence_texts.identify(apache) == "Apache-2.0"
    assert licence_texts.identify(apache.partition("APPENDIX")[0]) == "Apache-2.0"


def test_a_text_with_a_word_more_or_less_is_not() -> None:
    assert licence_texts.identify(f"{MIT}\nThe Software shall be used for Good, not Evil.") is None
    assert licence_texts.identify(MIT.replace("sell", "")) is None
    assert licence_texts.identify(f"For non-commercial use only.\n\n{MIT}") is None
    assert licence_texts.identify("") is None
    assert licence_texts.identify("All rights reserved.") is None


def test_an_identifier_at_the_top_of_a_text_speaks_for_it() -> None:
    assert licence_texts.identify("# SPDX-License-Identifier: MIT OR Apache-2.0\nimport this") == "MIT OR Apache-2.0"
    assert licence_texts.identify("SPDX-License-Identifier: MIT\nSPDX-License-Identifier: ISC\n") is None


def test_every_text_leads_to_a_licence() -> None:
    assert set(licence_texts._DIGESTS.values()) <= set(LICENCES)
    assert licences.LONGEST < licence_texts.LONGEST
