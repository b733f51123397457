"""Sandbox: Jinja for programs by strangers. Python cannot be reached, and what is written, kept and done has an end.

Jinja's own sandbox guards Python. Against a text that doubles itself or a loop without end it has nothing, so here all
that a template makes is measured, before it is made where it can be many times its parts, and the clock is looked at
at every step that may take long:

    outputs, loops        what is written, and how often
    + * ** ~ [...] x[a:]  operators, literals and slices
    filters, tests        those whose size cannot be foreseen are not there
    calls                 of methods, those that cannot make much out of little
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
from clearstory.text.template_limits import MAX_BITS, MAX_TEXT, RenderBudget, bit_count, method_result_size, length, estimated_length

# fmt: off
METHODS = {
    "capitalize", "casefold", "copy", "count", "endswith", "find", "format", "get", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "items", "join", "keys", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper", "values",
}
"""Of texts, lists, mappings and numbers: those that make no more than they are given, and three that are foreseen."""

FILTERS = {
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat", "first", "float",
    "forceescape", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "reverse", "safe", "select", "selectattr", "sort", "string", "title", "trim", "truncate", "unique",
    "upper", "urlencode", "wordcount",
}
"""Likewise; `center`, `indent` and others are asked for a width, which may be 10**12."""
# fmt: on


class BudgetedContext(Context):
    """Jinja's context of one rendering, with its budget."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget = RenderBudget()

    def derived(self, locals: Any = None) -> Context:
        """A scope within; it draws on the same budget."""
        within: Any = super().derived(locals)
        within.budget = self.budget
        return cast(Context, within)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's strictest environment, with an end to everything.

    Extending it is the way that Jinja offers to look at operators, calls and the tree of a template.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    context_class = BudgetedContext

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=bounded_output)
        plain = ImmutableSandboxedEnvironment()
        own: dict[str, Callable[..., Any]] = {"made": checked_value, "turns": bounded_loop, "concatenated": bounded_concat}
        own |= {"replace": bounded_replace, "join": bounded_join, "tojson": to_json}
        self.filters = {name: budgeted_filter(plain.call_filter, name) for name in FILTERS} | own
        self.tests = {name: budgeted_filter(plain.call_test, name) for name in plain.tests}
        self.globals = {name: self.globals[name] for name in ("dict", "namespace")} | {"range": bounded_range}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, once it is known that what it makes is bearable."""
        if isinstance(left, int | float) and isinstance(right, int | float):
            grows = {"*": bit_count(left) + bit_count(right), "**": bit_count(left) * abs(right)}
            if grows.get(operator, 0) > MAX_BITS:
                raise BadInput(f"the chat template makes something {right:,} times as large; use another")
        elif operator == "+":
            context.budget.make(length(left) + length(right))
        elif operator == "%" and isinstance(left, str):
            raise BadInput("the chat template formats text by %, which can be of any size; use another")
        elif operator == "*":
            times, size = (left, length(right)) if isinstance(left, int) else (right, length(left))
            if isinstance(times, int) and times * size > MAX_TEXT:
                raise BadInput(f"the chat template makes something {times:,} times as large; use another")
        return context.budget.check(super().call_binop(context, operator, left, right))

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call, likewise; of what is handed over too, since a macro may keep it."""
        context.budget.check(args)
        context.budget.check(kwargs)
        method = getattr(called, "__wrapped__", called)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int | float | Sequence | Mapping | Set):
            name = str(getattr(method, "__name__", ""))
            if name not in METHODS:
                raise BadInput(f"the chat template calls {name}, whose answer can be of any size; use another")
            args = tuple(list(each) for each in args) if name == "join" else args  # a generator can be asked once
            context.budget.make(method_result_size(owner, name, args, kwargs))
        return context.budget.check(super().call(context, called, *args, **kwargs))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Jinja's own step from a tree to Python; the tree gets its measures."""
        return super()._generate(BudgetedNodes().visit(source), *args, **kwargs)


class BudgetedNodes(NodeTransformer):
    """Puts a measure around what Jinja computes without asking its environment."""

    def check_result(self, node: nodes.Expr) -> nodes.Expr:
        """The same, measured when it is there."""
        self.generic_visit(node)
        return wrap_in_filter("made", node)

    visit_List = visit_Dict = visit_Compare = check_result

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        """But not where names are given to what comes out."""
        return self.check_result(node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """Slices only: for all else the environment is asked."""
        if isinstance(node.arg, nodes.Slice):
            return self.check_result(node)
        self.generic_visit(node)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """x ~ y, measured before."""
        self.generic_visit(node)
        return wrap_in_filter("concatenated", nodes.List(node.nodes, lineno=node.lineno))

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Turns are counted, with what each writes of the template's own."""
        if node.recursive:
            raise BadInput("the chat template has a loop that calls itself; use another")
        self.generic_visit(node)
        size = sum(len(data.data) for part in node.body for data in part.find_all(nodes.TemplateData))
        node.iter = wrap_in_filter("turns", cast(nodes.Expr, node.iter), nodes.Const(size, lineno=node.lineno))
        return node


def wrap_in_filter(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    """An expression through a filter."""
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def budgeted_filter(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """One of Jinja's own filters or tests; what it makes is measured."""

    @pass_context
    def apply(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return context.budget.check(call(name, value, args, kwargs, context=context))

    return apply


@pass_context
def checked_value(context: Any, value: Any) -> Any:
    """A value that is there."""
    return context.budget.check(value)


@pass_context
def bounded_loop(context: Any, values: Iterable[Any], size: int) -> Iterator[Any]:
    """The values of a loop."""
    for value in values:
        context.budget.turn(size)
        yield value


@pass_context
def bounded_range(context: Any, *bounds: int) -> range:
    """Python's range, with an end."""
    numbers = range(*bounds)
    context.budget.count(len(numbers))
    return numbers


@pass_context
def bounded_output(context: Any, value: Any) -> str:
    """What an expression writes."""
    text = value if isinstance(value, str) else str(context.budget.check(value))
    context.budget.write(len(text))
    return text


@pass_context
def bounded_concat(context: Any, values: Sequence[Any]) -> str:
    """x ~ y."""
    context.budget.make(sum(map(estimated_length, values)))
    return "".join(map(str, values))


@pass_context
def bounded_join(context: Any, values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    """Jinja's, measured before."""
    if attribute is not None:
        values = context.environment.filters["map"](context, values, attribute=attribute)
    parts = [part if isinstance(part, str) else str(context.budget.check(part)) for part in values]
    context.budget.make(sum(map(len, parts)) + len(parts) * len(d))
    return str(d).join(parts)


@pass_context
def bounded_replace(context: Any, value: Any, old: Any, new: Any, count: int = -1) -> str:
    """Jinja's, measured before."""
    text, old, new = (str(context.budget.check(each)) for each in (value, old, new))
    context.budget.make(method_result_size(text, "replace", (old, new), {}))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def to_json(context: Any, value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """As transformers writes it: plain, where Jinja's own would escape for HTML."""
    context.budget.make(estimated_length(value))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=None if indent is None else min(int(indent), 16))
