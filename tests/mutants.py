"""Mutants: each exercise's solution with one small change, which its check must notice.

`SURVIVORS` lists the changes that no check can or should notice, each with its reason.
"""

import ast
import copy
import random
import warnings
from dataclasses import dataclass

import numpy as np
import solved
import torch

from course_lib import checks

TURNS = 20_000  # of a loop in a mutant, more than any solution takes


@dataclass(frozen=True)
class Mutant:
    """`name` is `kind: old -> new`; `source` the cell with that change."""

    exercise: str
    function: str
    name: str
    source: str


OPERATORS = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
NAMES = {
    "mean": "sum",
    "sum": "mean",
    "min": "max",
    "max": "min",
    "amin": "amax",
    "amax": "amin",
    "any": "all",
    "all": "any",
    "sin": "cos",
    "cos": "sin",
    "randn": "rand",
    "randn_like": "rand_like",
    "rand": "randn",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
}


def changes(node):
    """(kind, the node changed) for every change of this node alone."""
    if isinstance(node, ast.BinOp):
        for kind in OPERATORS.get(type(node.op), ()):
            yield "operator", _with(node, op=kind())
        if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow, ast.MatMult)):
            yield "swapped", _with(node, left=node.right, right=node.left)
    elif isinstance(node, ast.AugAssign):
        for kind in OPERATORS.get(type(node.op), ()):
            yield "operator", _with(node, op=kind())
    elif isinstance(node, ast.UnaryOp):
        if isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
            yield "sign", node.operand
    elif isinstance(node, ast.Compare):
        for kind in COMPARISONS.get(type(node.ops[0]), ()):
            yield "comparison", _with(node, ops=[kind(), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "comparison", _with(node, op=other)
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "sign", _with(node, value=ast.UnaryOp(ast.USub(), node.value))
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.With):
        yield "removed", ast.If(ast.Constant(True), node.body, [])
    elif isinstance(node, ast.IfExp):
        yield "comparison", _with(node, body=node.orelse, orelse=node.body)
    if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
        field = "attr" if isinstance(node, ast.Attribute) else "id"
        if other := NAMES.get(getattr(node, field)):
            yield "reduction", _with(node, **{field: other})
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield "dropped", node.value  # x[:, None] -> x
    if isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.If, ast.For)):
        yield "removed", ast.Pass()


def _constants(node):
    if isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node.value, (int, float)):
        yield "constant", ast.Constant(node.value + 1)
        if node.value not in (0, -1):
            yield "constant", ast.Constant(0)


def _calls(node):
    if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        yield "dropped", node.func.value  # x.detach() -> x
    if node.args and isinstance(node.func, ast.Attribute):
        yield "dropped", _with(node, args=node.args[:-1])  # x.sum(1) -> x.sum()
    if len(node.args) >= 2 and not any(isinstance(x, ast.Starred) for x in node.args):
        yield "swapped", _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    for i, keyword in enumerate(node.keywords):
        if keyword.arg:
            kept = node.keywords[:i] + node.keywords[i + 1 :]
            yield "dropped", _with(node, keywords=kept)
            if keyword.arg in ("dim", "axis"):
                other = ast.keyword(keyword.arg, ast.Constant(0))
                yield "axis", _with(node, keywords=[*kept, other])


def _with(node, **fields):
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class _Replace(ast.NodeTransformer):
    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else super().generic_visit(node)


class _Guard(ast.NodeTransformer):
    """Each turn of a loop is counted, so that no mutant runs without end."""

    def visit_loop(self, node):
        self.generic_visit(node)
        node.body.insert(0, ast.parse("_turn()").body[0])
        return node

    visit_For = visit_While = visit_loop


def mutants(number, function, source):
    """Every mutant of a solved cell, changed behind its `# solution` line."""
    mark = next(i for i, x in enumerate(source.split("\n"), 1) if "# solution" in x)
    tree = ast.parse(source)
    for node in ast.walk(tree):  # what `strict=True` says is no part of an answer
        if isinstance(node, ast.Call):
            node.keywords = [x for x in node.keywords if x.arg != "strict"]
    inside = [x for x in ast.walk(tree) if getattr(x, "lineno", 0) > mark]
    even, other, forms = _even(tree), _other_name(tree), _forms(tree)
    seen, counts, found = {ast.unparse(tree)}, {}, []
    for node in inside:
        for kind, new in [*changes(node), *_exchanged(node, other)]:
            if kind == "swapped" and id(node) in even:
                continue
            if kind == "variable" and id(node) in forms:
                continue
            made = _Replace(node, new).visit(copy_of(tree, node))
            made = ast.fix_missing_locations(made)
            text = ast.unparse(made)
            if text in seen:
                continue
            seen.add(text)
            name = f"{kind}: {_line(node)} -> {_line(new)}"
            counts[name] = counts.get(name, 0) + 1
            name += f" #{counts[name]}" if counts[name] > 1 else ""
            found.append(Mutant(number, function, name, text))
    return found


def _other_name(tree):
    """{variable: the argument or variable before it}, in each function."""
    found = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [x.arg for x in function.args.args if x.arg != "self"]
        stored = [
            x
            for x in ast.walk(function)
            if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)
        ]
        stored.sort(key=lambda x: (x.lineno, x.col_offset))
        given = len(names)
        names = list(dict.fromkeys(names + [x.id for x in stored]))
        if len(names) > 1:
            before = names[max(given, 2) - 1]  # the first one takes the last argument
            found |= dict(zip(names, [before, *names], strict=False))
    return found


def _exchanged(node, other):
    """The use of a variable, with another in its place."""
    load = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    if load and node.id in other:
        yield "variable", _with(node, id=other[node.id])


def _forms(tree):
    """Ids of the variables of which only size, shape or device is read."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr in ("shape", "ndim", "device", "dtype"):
                found.append(node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "len" or name.endswith("_like"):
                found += node.args[:1]
    return {id(x) for x in found}


def _even(tree):
    """Ids of what may be swapped unseen: the difference in (a - b).abs(), max(a, b)."""
    inner, symmetric = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("max", "min", "union1d", "cosine_similarity"):
                symmetric.add(id(node))
            elif name == "abs" and isinstance(node.func, ast.Name):
                inner += node.args
            elif name in ("abs", "square", "norm"):
                inner.append(node.func.value)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            inner += [node.left] if ast.unparse(node.right) == "2" else []
    for i, node in enumerate(inner):
        while isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.Mult)):
            node = inner[i] = node.left
    return symmetric | {
        id(x) for x in inner if isinstance(x, ast.BinOp) and isinstance(x.op, ast.Sub)
    }


def copy_of(tree, kept):
    """A deep copy of the tree in which the node `kept` is the very same object."""
    return copy.deepcopy(tree, {id(kept): kept})


def _line(node):
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())


def course():
    """{exercise number: (names that the lesson knows, its mutants)}."""
    return {
        number: (task.names, mutants(number, task.name, task.source))
        for number, task in solved.course().items()
    }


def killed(mutant, names, check):
    """Whether the check refuses the mutant."""
    turns = 0

    def turn():
        nonlocal turns
        turns += 1
        if turns > TURNS:
            raise RuntimeError("a loop without end")

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what an answer may draw from
    torch.manual_seed(0)
    space = {**names, "_turn": turn}
    tree = _Guard().visit(ast.parse(mutant.source))
    try:
        with warnings.catch_warnings(action="ignore"):
            exec(compile(ast.fix_missing_locations(tree), "mutant", "exec"), space)
            return not check(space[mutant.function])
    except Exception:
        return True


def survivors(number, names, found):
    """The names of the mutants that the check of exercise `number` passes."""
    check = checks.all_checks()[number]
    return [x.name for x in found if not killed(x, names, check)]


EQUAL = "gives the same values"
CENTRED = "of a product of deviations one side is enough"
EVEN = "the noise is as likely with the other sign"

# {exercise: {mutant: why its check need not notice it}}
SURVIVORS = {
    "E00.2": {
        "dropped: np.asarray(tr, dtype=float) -> np.asarray(tr)": EQUAL,
    },
    "E00.3": {
        "swapped: np.clip((np.asarray(hu, dtype=float) - black) / width, 0, 1) -> "
        "np.clip(0, (np.asarray(hu, dtype=float) - black) / width, 1)": EQUAL,
        "dropped: np.asarray(hu, dtype=float) -> np.asarray(hu)": EQUAL,
    },
    "E00.5": {
        "removed: labels, predictions = (np.asarray(labels), np.asarray(predictions)) "
        "-> pass": "arrays are given; lists are a courtesy",
    },
    "E01.3": {
        "swapped: reconstruction_loss(x, model(noisy)) -> "
        "reconstruction_loss(model(noisy), x)": "the loss is symmetric",
    },
    "E01.4": {
        "dropped: torch.linalg.svd(flat - mean, full_matrices=False) -> "
        "torch.linalg.svd(flat - mean)": EQUAL,
        "constant: False -> True": EQUAL,
        "swapped: flat - mean -> mean - flat": "directions have no sign",
    },
    "E01.6": {
        "operator: codes.mean(dim=0) + noise @ factor.T -> "
        "codes.mean(dim=0) - noise @ factor.T": EVEN,
    },
    "E02.1": {
        "operator: mu + std * torch.randn_like(std) -> "
        "mu - std * torch.randn_like(std)": EVEN,
    },
    "E02.4": {
        "constant: 1 -> 2": "a cosine just below -1 is nan, and nan takes the line",
        "constant: 1 -> 2 #2": "a cosine just above 1 is nan, and nan takes the line",
        "comparison: sine > 0.0001 -> sine >= 0.0001": "one number in a continuum",
        "constant: 0.0001 -> 0": "rounding leaves the arc finite as well",
        "dropped: F.cosine_similarity(a, b, dim=1).clamp(-1, 1) -> "
        "F.cosine_similarity(a, b, dim=1).clamp(-1)": (
            "a cosine just above 1 is nan, and nan takes the line"
        ),
        "variable: sine -> angle": "opposite codes have no arc of their own",
        "dropped: F.cosine_similarity(a, b, dim=1) -> F.cosine_similarity(a, b)": EQUAL,
    },
    "E03.2": {
        "variable: optimizer -> discriminator": "the gradient is cleared either way",
    },
    "E04.3": {
        "dropped: torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device) -> "
        "torch.rand(len(real), *[1] * (real.ndim - 1))": "only a GPU shows it",
    },
    "E04.5": {
        "swapped: u @ weight @ v -> v @ (u @ weight)": EQUAL,
    },
    "E06.1": {
        "operator: 2 ** 2 -> 2 * 2": EQUAL,
    },
    "E06.3": {
        "swapped: features - features.mean(dim=0) -> features.mean(dim=0) - features": (
            "the product of two deviations has no sign"
        ),
        "variable: centred -> features": CENTRED,
        "variable: centred -> features #2": CENTRED,
    },
    "E06.6": {
        "constant: 1 -> 2": "where 1 / N is 0, its scale does not matter",
        "operator: values - values.mean() -> values + values.mean()": CENTRED,
        "reduction: values.mean -> values.sum #2": CENTRED,
        "operator: x - x.mean() -> x + x.mean()": CENTRED,
        "reduction: x.mean -> x.sum #2": CENTRED,
        "variable: x -> values #3": CENTRED,
    },
    "E07.3": {
        "removed: a, b = (np.asarray(a), np.asarray(b)) -> pass": (
            "arrays are given; lists are a courtesy"
        ),
        "variable: a -> b": "an answer of one reader alone adds nothing by lot",
        "variable: b -> a": "an answer of one reader alone adds nothing by lot",
    },
}
