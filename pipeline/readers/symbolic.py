"""The strict grammar of symbolic sizes in exported programs, which torch has sympy evaluate as Python.

Nothing may stand in them but symbols, small numbers, arithmetic and sympy's own constructors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from pipeline.readers.words import words

_LONGEST = 8192
_LARGEST = 1 << 64
_SYMBOL = re.compile(r"(?:s|u|f|z|zuf|zf|backed|unbacked)\d{1,6}")
_NAME_IN_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DECIMAL = re.compile(r"-?[0-9.]{1,40}(?:e[+-]?\d{1,3})?")
_CONSTANTS = frozenset({"oo", "int_oo", "true", "false", "True", "False", "pi", "E"})
_FUNCTIONS = words(
    "Symbol Integer Rational Float Add Mul Pow Max Min Abs Mod And Or Not Xor Eq Ne Lt Le Gt Ge Equality "
    "Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Piecewise ExprCondPair ITE ceiling floor "
    "sqrt sign FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt "
    "RoundToInt RoundDecimal ToFloat Identity BooleanTrue BooleanFalse NegativeInfinity Infinity IntInfinity "
    "NegativeIntInfinity"
)
_ASSUMPTIONS = words(
    "positive integer real nonnegative negative nonpositive nonzero zero finite infinite rational commutative "
    "even odd evaluate complex extended_real extended_positive hermitian"
)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def is_expression(text: str) -> bool:
    """Whether the text is one symbolic expression and nothing else."""
    return _parses(text, _plain)


def is_guard(text: str) -> bool:
    """Whether the text is a comparison of input sizes (`L['x'].size()[0] == 2*L['y'].size()[1]`)."""
    return _parses(text, _guard)


def _parses(text: str, judge: Callable[[ast.expr], bool]) -> bool:
    if len(text) > _LONGEST or not text.isascii():
        return False
    try:
        return judge(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _guard(node: ast.expr) -> bool:  # noqa: C901 - one case for each form of the grammar
    match node:
        case ast.BoolOp(values=values):
            return all(map(_guard, values))
        case ast.Compare(left=left, ops=operators, comparators=others):
            plain = (*_COMPARISONS, ast.Is, ast.IsNot)
            return all(isinstance(one, plain) for one in operators) and all(map(_guard, (left, *others)))
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            return _guard(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _guard(left) and _small(right)
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, _OPERATORS) and _guard(left) and _guard(right)
        case ast.Constant(value=None | str()):
            return True
        case ast.Constant():
            return _plain(node)
        case ast.Call(func=ast.Name(id="Max" | "Min"), args=arguments, keywords=[]):
            return all(map(_guard, arguments))
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=value, attr="size" | "stride"), args=[], keywords=[])
        ):
            return _input(value) and _index(node.slice)
        case ast.Call(func=ast.Attribute(value=value, attr="storage_offset" | "dim"), args=[], keywords=[]):
            return _input(value)
        case _:
            return _input(node)


def _input(node: ast.expr) -> bool:
    """`L['x']`, and items inside it."""
    match node:
        case ast.Name(id="L"):
            return True
        case ast.Subscript(value=value, slice=index):
            return _input(value) and _index(index)
        case _:
            return False


def _index(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, str)


def _plain(node: ast.expr) -> bool:  # noqa: C901 - one case for each form of the grammar
    match node:
        case ast.Constant(value=bool()):
            return True
        case ast.Constant(value=int() as value):
            return abs(value) <= _LARGEST
        case ast.Constant(value=float()):
            return True
        case ast.Name(id=name):
            return name in _CONSTANTS or _SYMBOL.fullmatch(name) is not None
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=operand):
            return _plain(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _plain(left) and _small(right)
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, _OPERATORS) and _plain(left) and _plain(right)
        case ast.Compare(left=left, ops=operators, comparators=others):
            return all(isinstance(one, _COMPARISONS) for one in operators) and all(map(_plain, (left, *others)))
        case ast.Tuple(elts=elements):
            return all(map(_plain, elements))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            return name in _FUNCTIONS and _arguments(name, arguments) and all(map(_assumption, keywords))
        case _:
            return False


def _arguments(name: str, arguments: list[ast.expr]) -> bool:
    match name, arguments:
        case "Symbol", [ast.Constant(value=str() as text)]:
            return _NAME_IN_SYMBOL.fullmatch(text) is not None
        case "Float", [ast.Constant(value=str() as text), *rest]:
            return _DECIMAL.fullmatch(text) is not None and all(map(_plain, rest))
        case ("Symbol", _):
            return False
        case (("Pow" | "PowByNatural" | "FloatPow"), [base, exponent]):
            return _plain(base) and _small(exponent)
        case (("LShift" | "RShift"), [base, count]):
            return _plain(base) and _small(count)
        case _:
            return all(map(_plain, arguments))


def _small(node: ast.expr) -> bool:
    """Exponents: numbers so large that evaluating them would never end are no sizes of anything."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _small(operand)
        case ast.Call(func=ast.Name(id="Integer"), args=[argument], keywords=[]):
            return _small(argument)
        case ast.Call(func=ast.Name(id="Rational"), args=[one, other], keywords=[]):
            return _small(one) and _small(other)
        case ast.Constant(value=int() | float() as value):
            return abs(value) <= 64
        case _:
            return False


def _assumption(keyword: ast.keyword) -> bool:
    match keyword:
        case ast.keyword(arg="precision", value=ast.Constant(value=int() as value)):
            return 0 < value < 1 << 12
        case ast.keyword(arg=str() as name, value=ast.Constant(value=bool())):
            return name in _ASSUMPTIONS
        case _:
            return False
