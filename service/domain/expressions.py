"""JMESPath, with an end: an expression that somebody made up must not keep everybody else waiting."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter

LONGEST_EXPRESSION: Final = 1000  # characters


class InvalidExpression(ValueError):
    """Not a JMESPath expression; the message says where it breaks."""


class CannotEvaluate(ValueError):
    """It breaks over this content, or costs more steps than are left."""


@dataclass(slots=True)
class Steps:
    """Steps that may still be taken, by one evaluation or by several together. A thousand take a few milliseconds."""

    left: int
    whole: "Steps | None" = None  # of which this is a part: what is spent here is spent there

    def part(self, most: int) -> "Steps":
        return Steps(most, whole=self)

    def spend(self, number: int) -> None:
        self.left -= number
        if self.whole is not None:
            self.whole.spend(number)
        if self.left < 0:
            raise _TooLong("it takes too many steps")


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> "jmespath.parser.ParsedResult":
    return jmespath.compile(expression)


def check(expression: str) -> None:
    """
    Raises:
        InvalidExpression: it does not parse, or is longer than anybody should wait for it to be parsed; or it calls a
            function that is not there, or with a number of arguments that it never takes.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise InvalidExpression(f"it has more than {LONGEST_EXPRESSION} characters")
    try:
        parsed = _compiled(expression).parsed
    except (JMESPathError, RecursionError) as error:
        raise InvalidExpression(str(error).splitlines()[0]) from None
    for name, given in _calls(parsed):
        _check_call(name, given)


def _calls(parsed: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Each function that is called, with its number of arguments."""
    nodes: list[Any] = [parsed]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, dict):  # a number of a slice
            continue
        if node["type"] == "function_expression":
            yield node["value"], len(node["children"])
        nodes += node["children"]


def _check_call(name: str, given: int) -> None:
    if name not in Functions.FUNCTION_TABLE:
        raise InvalidExpression(f"there is no function {name}()")
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    taken = len(signature)
    is_open = bool(signature and signature[-1].get("variadic"))
    if given < taken or (given > taken and not is_open):
        least = "at least " if is_open else ""
        arguments = "argument" if taken == 1 else "arguments"
        raise InvalidExpression(f"{name}() takes {least}{taken} {arguments}, not {given}")


def evaluate(expression: str, content: object, *, steps: Steps) -> Any:
    """
    Raises:
        CannotEvaluate: it breaks over this content, or the steps are spent.
    """
    try:
        steps.spend(len(expression))  # which is what it costs to parse, where it is not remembered
        return _Evaluation(steps.spend).visit(_compiled(expression).parsed, content)
    except (JMESPathError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
        raise CannotEvaluate((str(error).splitlines() or [type(error).__name__])[0]) from None


class _TooLong(JMESPathError):
    """Needs more steps than any honest expression."""


class _Evaluation(TreeInterpreter):
    """One search, with an end: `[@,@][]|[@,@][]|…` doubles its value at each bar."""

    def __init__(self, spend: Callable[[int], None]) -> None:
        super().__init__(Options(custom_functions=_Functions(spend)))
        self._spend = spend

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        flat = super().visit_flatten(node, value)
        self._spend(len(flat or ()))
        return flat

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_multi_select_list(node, value))

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_multi_select_dict(node, value))

    def _weighed(self, value: Any) -> Any:
        """Only here, and where text is made of text, can a value become more than it was."""
        parts = [value]
        while parts:
            match parts.pop():
                case str(text):
                    self._spend(1 + len(text))
                case list(items):
                    self._spend(1)
                    parts += items
                case dict(fields):
                    self._spend(1)
                    parts += fields.values()
                case _:
                    self._spend(1)
        return value


class _Functions(Functions):
    def __init__(self, spend: Callable[[int], None]) -> None:
        self._spend = spend

    def call_function(self, function_name: str, resolved_args: Any) -> Any:
        match function_name, resolved_args:
            case "join", [str(separator), list(texts)]:
                self._spend(len(separator) * len(texts))
        self._spend(sum(len(argument) for argument in resolved_args if isinstance(argument, (list, dict))))
        value = super().call_function(function_name, resolved_args)
        if isinstance(value, str):
            self._spend(len(value))
        return value
