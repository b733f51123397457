"""Sandboxed Jinja for untrusted templates: no access to Python; output, memory, iterations and time are limited.

Jinja's own sandbox protects Python objects but does not limit doubling strings or long loops. Here everything that a
template creates is counted against a budget, before it is created where its size can be many times that of its parts,
and the clock is checked at every step that may be slow:

    outputs, loops        amount of output, number of iterations
    + * ** ~ [...] x[a:]  operators, literals and slices
    filters, tests        those whose result size cannot be bounded are not available
    calls                 only methods whose result size can be bounded
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from clearstory.errors import BadInput
from clearstory.text.template_limits import (
    MAX_BITS,
    MAX_TEXT,
    RenderBudget,
    bit_count,
    estimated_length,
    length,
    method_result_size,
)

# fmt: off
METHODS = {
    "capitalize", "casefold", "copy", "count", "endswith", "find", "format", "get", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "items", "join", "keys", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper", "values",
}
"""Allowed methods of strings, lists, mappings and numbers: their result is no larger than their input, or is bounded by
`method_result_size`.
"""

FILTERS = {
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first", "float",
    "forceescape", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "reverse", "safe", "select", "selectattr", "sort", "string", "title", "trim", "truncate", "unique",
    "upper", "urlencode", "wordcount",
}
"""Allowed filters; `center`, `indent` and others take a width, which may be 10**12, and are not."""
# fmt: on


class BudgetedContext(Context):
    """Jinja's context of one rendering, with its budget."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = RenderBudget()

    def derived(self, locals: Any = None) -> Context:
        """An inner scope with the same budget."""
        within: Any = super().derived(locals)
        within.budget = self.budget
        return cast(Context, within)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with limits.

    Subclassing the environment is Jinja's way to intercept operators, calls and the syntax tree.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    context_class = BudgetedContext

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=bounded_output
        )
        plain = ImmutableSandboxedEnvironment()
        own: dict[str, Callable[..., Any]] = {
            "made": checked_value,
            "turns": bounded_loop,
            "concatenated": bounded_concat,
        }
        own |= {"replace": bounded_replace, "join": bounded_join, "tojson": to_json}
        self.filters = {name: budgeted_filter(plain.call_filter, name) for name in FILTERS} | own
        self.tests = {name: budgeted_filter(plain.call_test, name) for name in plain.tests}
        self.globals = {name: self.globals[name] for name in ("dict", "namespace")} | {"range": bounded_range}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Result of a binary operator, after checking the size of the result."""
        if isinstance(left, int | float) and isinstance(right, int | float):
            grows = {"*": bit_count(left) + bit_count(right), "**": bit_count(left) * abs(right)}
            if grows.get(operator, 0) > MAX_BITS:
                raise BadInput(f"the chat template creates a value {right:,} times as large; use another template")
        elif operator == "+":
            context.budget.count_value(length(left) + length(right))
        elif operator == "%" and isinstance(left, str):
            raise BadInput("the chat template formats text by %, whose result can be of any size; use another template")
        elif operator == "*":
            times, size = (left, length(right)) if isinstance(left, int) else (right, length(left))
            if isinstance(times, int) and times * size > MAX_TEXT:
                raise BadInput(f"the chat template creates a value {times:,} times as large; use another template")
        return context.budget.check(super().call_binop(context, operator, left, right))

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Result of a call, after checking its arguments, which a macro may keep, and the size of the result."""
        context.budget.check(args)
        context.budget.check(kwargs)
        method = getattr(called, "__wrapped__", called)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int | float | Sequence | Mapping | Set):
            name = str(getattr(method, "__name__", ""))
            if name not in METHODS:
                raise BadInput(f"the chat template calls {name}, whose result can be of any size; use another template")
            args = tuple(list(each) for each in args) if name == "join" else args  # a generator can be consumed once
            context.budget.count_value(method_result_size(owner, name, args, kwargs))
        return context.budget.check(super().call(context, called, *args, **kwargs))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Python source of a template's syntax tree, with budget checks inserted."""
        return super()._generate(BudgetedNodes().visit(source), *args, **kwargs)


class BudgetedNodes(NodeTransformer):
    """Inserts budget checks around expressions that Jinja evaluates without calling the environment."""

    def check_result(self, node: nodes.Expr) -> nodes.Expr:
        """The node, with its value checked."""
        self.generic_visit(node)
        return wrap_in_filter("made", node)

    visit_List = visit_Dict = visit_Compare = check_result

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        """Checks tuples, except assignment targets."""
        return self.check_result(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """Checks slices; for other items Jinja calls the environment."""
        if isinstance(node.arg, nodes.Slice):
            return self.check_result(node)
        self.generic_visit(node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """Checks x ~ y before it is evaluated."""
        self.generic_visit(node)
        return wrap_in_filter("concatenated", nodes.List(node.nodes, lineno=node.lineno))

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Counts the iterations of a loop, and the template's own text in each."""
        if node.recursive:
            raise BadInput("the chat template has a recursive loop; use another template")
        self.generic_visit(node)
        size = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        node.iter = wrap_in_filter("turns", cast(nodes.Expr, node.iter), nodes.Const(size, lineno=node.lineno))
        return node


def wrap_in_filter(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    """The expression piped through a filter."""
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def budgeted_filter(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """One of Jinja's filters or tests, with its result checked."""

    @pass_context
    def apply(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return context.budget.check(call(name, value, args, kwargs, context=context))

    return apply


@pass_context
def checked_value(context: Any, value: Any) -> Any:
    """The value, after its size was checked."""
    return context.budget.check(value)


@pass_context
def bounded_loop(context: Any, values: Iterable[Any], size: int) -> Iterator[Any]:
    """Items of an iterable, each counted."""
    for value in values:
        context.budget.count_iteration(size)
        yield value


@pass_context
def bounded_range(context: Any, *bounds: int) -> range:
    """Python's range, with its length counted."""
    numbers = range(*bounds)
    context.budget.count_range(len(numbers))
    return numbers


@pass_context
def bounded_output(context: Any, value: Any) -> str:
    """String form of an output expression, counted."""
    text = value if isinstance(value, str) else str(context.budget.check(value))
    context.budget.count_output(len(text))
    return text


@pass_context
def bounded_concat(context: Any, values: Sequence[Any]) -> str:
    """x ~ y, counted before it is created."""
    context.budget.count_value(sum(map(estimated_length, values)))
    return "".join(map(str, values))


@pass_context
def bounded_join(context: Any, values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    """Jinja's join filter, counted before the string is created."""
    if attribute is not None:
        values = context.environment.filters["map"](context, values, attribute=attribute)
    parts = [part if isinstance(part, str) else str(context.budget.check(part)) for part in values]
    context.budget.count_value(sum(map(len, parts)) + len(parts) * len(d))
    return str(d).join(parts)


@pass_context
def bounded_replace(context: Any, value: Any, old: Any, new: Any, count: int = -1) -> str:
    """Jinja's replace filter, counted before the string is created."""
    text, old, new = (str(context.budget.check(each)) for each in (value, old, new))
    context.budget.count_value(method_result_size(text, "replace", (old, new), {}))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def to_json(context: Any, value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """JSON as transformers writes it, without Jinja's HTML escaping."""
    context.budget.count_value(estimated_length(value))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=None if indent is None else min(int(indent), 16))
