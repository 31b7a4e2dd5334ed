"""Whether a project under one licence may use a model under another. Pure; knows licences by name, never what they cost.

The question has a direction: what comes in is the model's, what goes out is the project's. "Use" is to build the model in,
or to make something of it, and to hand out the whole. What is not known is never called compatible. No legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache
from typing import Any

from registry.licence_list import ALIASES, BOTH, GPL2_EXCEPTIONS, LICENCES, LINKING_EXCEPTIONS, NEVER, Family, Licence

LONGEST = 256
"""Characters that an expression may have."""


class Verdict(IntEnum):
    """In order: OR takes the highest, AND the lowest."""

    INCOMPATIBLE = 0
    UNKNOWN = 1
    COMPATIBLE = 2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`reason` in one sentence; `warnings`: what to heed where the answer is used."""

    verdict: Verdict
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Single:
    """One licence. `licence` is None for one that Slipway does not know; `excepted`: it has an exception that it does not know."""

    name: str
    licence: Licence | None
    excepted: bool = False


@dataclass(frozen=True)
class Choice:
    """OR: one of them is enough."""

    of: tuple[Expression, ...]


@dataclass(frozen=True)
class Union:
    """AND: all of them count."""

    of: tuple[Expression, ...]


Expression = Single | Choice | Union


def parse(text: str) -> Expression:
    """An SPDX expression (`MIT OR Apache-2.0`, `GPL-2.0-only WITH Classpath-exception-2.0`), or a name that people use for one.

    Raises `ValueError` for text that is neither.
    """
    text = " ".join(text.split())
    if not text or len(text) > LONGEST:
        raise ValueError(f"has to be an SPDX licence expression of 1 to {LONGEST} characters")
    if known := _known(text):
        return Single(known.id, known)
    from license_expression import ExpressionError

    try:
        tree = _spdx().parse(text)
    except (
        ExpressionError,
        AttributeError,
        IndexError,
        TypeError,
    ) as error:  # the last three on what is left unfinished
        raise ValueError("is not an SPDX licence expression such as Apache-2.0 or MIT OR GPL-3.0-only") from error
    return _converted(tree)


def written(expression: Expression) -> str:
    """The expression with the names that Slipway uses."""
    match expression:
        case Single():
            return expression.name
        case Choice() | Union():
            word = " OR " if isinstance(expression, Choice) else " AND "
            return word.join(written(one) if isinstance(one, Single) else f"({written(one)})" for one in expression.of)


def families(expression: Expression) -> list[str]:
    """The families of all licences in it, in order; `unknown` for those that Slipway does not know."""
    match expression:
        case Single(licence=licence):
            return ["unknown" if licence is None else licence.family]
        case Choice(of=of) | Union(of=of):
            return list(dict.fromkeys(family for one in of for family in families(one)))


def offers(text: str, allowed: Iterable[str]) -> bool:
    """Whether an expression can be lived with by those who take no other licences than these: OR takes one, AND all.

    Any spelling that `parse` knows will do on both sides; text that it does not know is only the same as itself.
    """
    names = {_name(one) for one in allowed}

    def fits(part: Expression) -> bool:
        if written(part).casefold() in names:
            return True
        match part:
            case Choice(of=of):
                return any(map(fits, of))
            case Union(of=of):
                return all(map(fits, of))
            case Single():
                return False

    try:
        return fits(parse(text))
    except ValueError:
        return text.casefold() in names


def check(*, project: Expression, model: Expression) -> Answer:
    """Whether the project may use the model and still be handed out under its own licence."""
    match project, model:
        case Choice(of=of), _:
            return _chosen(of, [check(project=one, model=model) for one in of])
        case Union(of=of), _:
            return _worst([check(project=one, model=model) for one in of])
        case _, Choice(of=of):
            return _best([check(project=project, model=one) for one in of])
        case _, Union(of=of):
            return _worst([check(project=project, model=one) for one in of])
        case Single(), Single():
            return _check_one(project, model)
    raise AssertionError("an expression is one of three things")


def _check_one(project: Single, model: Single) -> Answer:
    for whose, one in (("project", project), ("model", model)):
        if one.licence is None:
            return _unknown(f"Slipway does not know the {whose}'s licence {one.name}; somebody has to read it.")
    outer, inner = project.licence, model.licence
    if outer is None or inner is None:
        raise AssertionError("both are known by now")
    answer = _judge(project=outer, model=inner)
    if answer.verdict is Verdict.INCOMPATIBLE:
        if model.excepted:
            return _unknown(f"{inner.id} alone would not do; whether its exception helps, somebody has to read.")
        return answer
    return replace(answer, warnings=(*answer.warnings, inner.terms)) if inner.terms else answer


def _judge(*, project: Licence, model: Licence) -> Answer:
    if model.family in (Family.PROPRIETARY, Family.SOURCE_AVAILABLE):
        return _owned(project, model)
    if model.id == project.id:
        return _yes(f"Both are under {model.id}.", _duties(model))
    if model.family is Family.PUBLIC_DOMAIN:
        return _yes(f"{model.id} asks for nothing, so a project under any licence may use the model.")
    if project.is_gpl:
        return _under_gpl(project, model)
    if project.id in model.becomes:
        return _yes(f"{model.id} lets what is made with it go under {project.id}.", _duties(model))
    match model.family:
        case Family.PERMISSIVE | Family.WEAK_COPYLEFT:
            return _yes(f"{model.id} may be part of works under any licence, {project.id} too.", _duties(model))
        case Family.BEHAVIOURAL | Family.COMMUNITY if project.family not in _NO_FURTHER_TERMS:
            return _yes(f"The model keeps {model.id} beside the project's {project.id}.", _duties(model))
        case Family.STRONG_COPYLEFT | Family.NETWORK_COPYLEFT if model.id in project.becomes or (
            project.id == "EUPL-1.2" and model.is_gpl
        ):
            return _yes(
                f"{project.id} lets a work that holds {model.id} go under {model.id}.",
                (f"With the model in it the whole goes under {model.id}.", *_duties(model)),
            )
        case Family.NON_COMMERCIAL if project.family is Family.PROPRIETARY:
            return _unknown(
                f"{model.id} forbids commercial use; whether the project is commercial, its licence does not say."
            )
        case _:
            return _no(f"{_demand(model)}, and {project.id} cannot promise that.")


def _owned(project: Licence, model: Licence) -> Answer:
    """What belongs to somebody may be used as its owner says, which no list knows."""
    if project.family in (Family.PROPRIETARY, Family.SOURCE_AVAILABLE):
        return _unknown(f"A model under {model.id} may be used as its owner says; look at the contract.")
    return _no(f"{model.id} gives nobody the rights that {project.id} passes on; ask the owner for another licence.")


def _under_gpl(project: Licence, model: Licence) -> Answer:
    """The whole has to go under a version of the GPL: under one that the project offers and the model allows."""
    offered = project.gpl or NEVER
    if model.gpl is None:
        return _unknown(f"Nobody who should know has said whether {model.id} goes together with {project.id}.")
    shared = offered & model.gpl
    if not shared and model.gpl:
        wanted = " or ".join(str(one) for one in sorted(model.gpl))
        return _no(
            f"{model.id} goes together with version {wanted} of the GNU GPL only, and the project is {project.id}."
        )
    if not shared:
        return _no(f"{_demand(model)}, which the GNU GPL forbids to add.")
    warnings = _duties(model)
    if shared < offered:
        warnings = (f"With the model in it the whole goes under version {max(shared)} of the GNU GPL.", *warnings)
    return _yes(f"{model.id} may be part of a work under {project.id}.", warnings)


def _duties(model: Licence) -> tuple[str, ...]:
    """What whoever hands the model on has to do."""
    match model.family:
        case Family.PERMISSIVE:
            return ("Keep the model's copyright and licence notices.",)
        case Family.WEAK_COPYLEFT:
            return (f"The model stays under {model.id}; changes to it have to be published under it.",)
        case Family.STRONG_COPYLEFT:
            return (f"Whoever gets the whole gets its source, under {model.id}.",)
        case Family.NETWORK_COPYLEFT:
            return (f"Whoever uses it over a network must be offered the source, under {model.id}.",)
        case Family.SHARE_ALIKE:
            return (f"Name the authors; what is made of the model stays under {model.id} or what that allows.",)
        case Family.NON_COMMERCIAL:
            return ("Nobody may use it commercially; name the authors.",)
        case Family.NO_DERIVATIVES:
            return ("It may be passed on as it is only: nothing that was made of it.",)
        case Family.BEHAVIOURAL | Family.COMMUNITY:
            return (
                f"The use restrictions of {model.id} go with the model to everybody who gets it or what is made of it.",
            )
        case _:
            return ()


def _demand(model: Licence) -> str:
    match model.family:
        case Family.STRONG_COPYLEFT | Family.NETWORK_COPYLEFT | Family.SHARE_ALIKE:
            return f"{model.id} wants the whole that is made with the model under {model.id}"
        case Family.NON_COMMERCIAL:
            return f"{model.id} forbids commercial use to everybody"
        case Family.NO_DERIVATIVES:
            return f"{model.id} forbids to hand out anything that is made of the model"
        case Family.BEHAVIOURAL | Family.COMMUNITY:
            return f"{model.id} restricts what the model may be used for"
        case _:
            return f"{model.id} has conditions of its own"


_NO_FURTHER_TERMS = (Family.STRONG_COPYLEFT, Family.NETWORK_COPYLEFT, Family.SHARE_ALIKE)
"""Projects whose licence forbids to add restrictions to the whole."""


def _yes(reason: str, warnings: Iterable[str] = ()) -> Answer:
    return Answer(verdict=Verdict.COMPATIBLE, reason=reason, warnings=tuple(warnings))


def _no(reason: str) -> Answer:
    return Answer(verdict=Verdict.INCOMPATIBLE, reason=reason)


def _unknown(reason: str) -> Answer:
    return Answer(verdict=Verdict.UNKNOWN, reason=reason)


def _best(answers: Sequence[Answer]) -> Answer:
    return max(answers, key=lambda one: one.verdict)


def _worst(answers: Sequence[Answer]) -> Answer:
    """The lowest answer, with what to heed of all."""
    lowest = min(answers, key=lambda one: one.verdict)
    return replace(lowest, warnings=tuple(dict.fromkeys(warning for one in answers for warning in one.warnings)))


def _chosen(projects: Sequence[Expression], answers: Sequence[Answer]) -> Answer:
    """The highest answer; where not all of the project's licences give it, which of them do."""
    best = _best(answers)
    kept = [written(one) for one, answer in zip(projects, answers, strict=True) if answer.verdict == best.verdict]
    if len(kept) == len(projects) or best.verdict is Verdict.INCOMPATIBLE:
        return best
    return replace(
        best, warnings=(f"With the model in it the whole goes under {' or '.join(kept)} alone.", *best.warnings)
    )


@cache
def _spdx() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _name(text: str) -> str:
    try:
        return written(parse(text)).casefold()
    except ValueError:
        return text.casefold()


def _known(name: str) -> Licence | None:
    found = ALIASES.get(name.lower().removeprefix("licenseref-"))
    return None if found is None else LICENCES[found]


def _converted(tree: Any) -> Expression:
    from license_expression import AND, OR, LicenseWithExceptionSymbol

    match tree:
        case AND():
            return Union(tuple(_converted(one) for one in tree.args))
        case OR():
            return Choice(tuple(_converted(one) for one in tree.args))
        case LicenseWithExceptionSymbol():
            return _excepted(str(tree.license_symbol.key), str(tree.exception_symbol.key))
        case _:
            found = _known(str(tree.key))
            return Single(str(tree.key), None) if found is None else Single(found.id, found)


def _excepted(name: str, exception: str) -> Single:
    """A licence with an exception, which allows more than the licence alone; how much, Slipway knows of some."""
    found = _known(name)
    if found is None:
        return Single(f"{name} WITH {exception}", None)
    whole = f"{found.id} WITH {exception}"
    if exception in LINKING_EXCEPTIONS and found.is_gpl:
        return Single(whole, replace(found, id=whole, family=Family.WEAK_COPYLEFT, gpl=BOTH))
    if exception in GPL2_EXCEPTIONS and found.id == "Apache-2.0":
        return Single(whole, replace(found, id=whole, gpl=BOTH))
    return Single(whole, found, excepted=True)
