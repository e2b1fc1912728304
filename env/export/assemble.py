"""Puts a controller and the runtime together: one file, from the text of the modules beside this one."""

import ast
import hashlib
import textwrap
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from env.errors import UserError
from env.export.settings import Settings
from env.program import Program, needs
from env.store_writer import generator_version

HERE = Path(__file__).parent
# In the order in which they are written; `program` is where the controller goes.
PARTS = ("settings", "program", "answers", "server", "branch", "scoring", "episode", "runtime")
VOTING = "controllers.voting"
# What an exported file calls them.
HELPERS = "VOTING"
# By this an exported file is known, and may be written over.
MARK = "Made by `autotts export`"


def assemble(program: Program, beta: float, settings: Settings, voting: str, origin: str = "") -> str:
    """The text of an exported file.

    Args:
        program: the controller; it is checked first.
        beta: what it runs at unless it is told otherwise.
        settings: how the model is asked.
        voting: the source of `controllers.voting`.
        origin: a sentence on where the settings are from.

    Raises:
        UserError: the controller does not keep the contract, or needs what one model and one prompt are not.
    """
    program.check()
    tree = ast.parse(program.source)
    if "arms" in needs(program.source):
        raise UserError(
            f"{program.name} chooses between arms, and an exported file has one model and one prompt; export "
            "a controller that does not name `arm`"
        )
    sources = {part: (HERE / f"{part}.py").read_text(encoding="utf-8") for part in PARTS}
    helpers, kept_imports = _helpers(voting, _imported(tree))
    trees = {part: ast.parse(text) for part, text in sources.items()}
    body = {part: _body(text, trees[part]) for part, text in sources.items()}
    body["program"] = _replaced(
        body["program"],
        {
            "BETA": f"BETA = {beta!r}",
            "NEEDS": f"NEEDS: frozenset[str] = frozenset({sorted(needs(program.source))!r})",
            "SETTINGS": _written(settings),
            "controller": _as_function(program.source, tree),
        },
    )
    imports = _merged([kept_imports, *trees.values()])
    sections = [f"{_header(program, beta, origin)}\n\n{imports}"]
    for part in PARTS:
        if part == "program":
            sections += helpers
        sections += [_as_comment(ast.get_docstring(trees[part]) or ""), body[part]]
    sections.append('if __name__ == "__main__":\n    sys.exit(main())')
    text = "\n\n\n".join(section.strip("\n") for section in sections) + "\n"
    try:
        compile(text, f"{program.name}, exported", "exec")
    except SyntaxError as error:
        raise UserError(
            f"{program.name} cannot be exported, {error.msg}: {(error.text or '').strip()!r}; write it anew"
        ) from None
    return text


def _header(program: Program, beta: float, origin: str) -> str:
    digest = hashlib.sha256(program.source.encode()).hexdigest()
    author = (
        "It is one that AutoTTS ships."
        if program.trusted
        else "AutoTTS does not ship it: a model or a stranger may have written it."
    )
    lines = [
        f"The controller {program.name} at beta {beta:g}, ready to run against a vLLM server.",
        f"{MARK}, {generator_version()}; sha256 of the controller: {digest}. {origin}".strip(),
        f"The controller runs in this process with all your rights. {author} Read it before you run it: it "
        "is the function `controller` below.",
        "What this file does not carry: the checker that compares answers by mathematics. Here two answers "
        "are the same if the texts of their last boxed answer are, tidied up; see `boxed`, and `read` of "
        "`answer` to bring a rule of your own. Nor does it carry the isolation of controllers.",
    ]
    wrapped = "\n\n".join(textwrap.fill(line, 106, break_on_hyphens=False) for line in lines)
    use = """    python THIS_FILE --base-url http://localhost:8000/v1 --model MODEL "What is 6 times 7?"
    python THIS_FILE --base-url URL --model MODEL --json < questions.jsonl

    from THIS_FILE import answer
    result = await answer("What is 6 times 7?", client=openai.AsyncOpenAI(base_url=URL), model=MODEL)

It needs Python 3.11 and `pip install openai`, and a server of vLLM 0.10.2 or newer."""
    return f'#!/usr/bin/env python3\n"""{wrapped}\n\n{use}\n"""'


def _as_comment(docstring: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in docstring.splitlines())


def _written(settings: Settings) -> str:
    values = [f"    {field.name}={getattr(settings, field.name)!r}," for field in fields(settings)]
    return "\n".join(["SETTINGS = Settings(", *values, ")"])


def _as_function(source: str, tree: ast.Module) -> str:
    """A controller's file as the body of a function, so that its names are its own."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside_texts = {
        line
        for node in ast.walk(tree)
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in docstrings
        for line in range(node.lineno, node.end_lineno or node.lineno)
    }
    lines = source.splitlines()
    written = [f"    {line}" if line.strip() else "" for line in lines]
    for number in inside_texts:
        written[number] = lines[number]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and (instead := _rebound(node)):
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            rest = lines[last - 1][node.end_col_offset :]
            written[first] = f"    {lines[first][: node.col_offset]}{instead}{rest}"
            written[first + 1 : last] = [""] * (last - first - 1)
    body = "\n".join(written).strip("\n")
    return f"def controller() -> Controller:\n{body}\n\n    return Controller(schedule, solve)"


def _rebound(node: ast.Import | ast.ImportFrom) -> str:
    """What stands in the place of an import of voting helpers; empty for other imports."""
    if isinstance(node, ast.ImportFrom):
        names = ", ".join(alias.asname or alias.name for alias in node.names)
        values = ", ".join(f"{HELPERS}.{alias.name}" for alias in node.names)
        return f"{names} = {values}" if node.module == VOTING else ""
    written = {
        alias: ast.unparse(ast.Import([alias]))
        if alias.name != VOTING
        else f"{alias.asname} = {HELPERS}"
        if alias.asname
        else f"controllers = SimpleNamespace(voting={HELPERS})"
        for alias in node.names
    }
    return "; ".join(written.values()) if any(alias.name == VOTING for alias in written) else ""


def _imported(tree: ast.Module) -> list[str] | None:
    """The voting helpers that a controller imports; None = the module itself, so all of them."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == VOTING:
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.Import) and any(alias.name == VOTING for alias in node.names):
            return None
    return names


def _helpers(voting: str, wanted: list[str] | None) -> tuple[list[str], ast.Module]:
    """The voting helpers that are wanted and those that these use, as sections; and their imports."""
    tree = ast.parse(voting)
    defined = {_name(node): node for node in tree.body if _name(node)}
    names = list(defined) if wanted is None else wanted
    if unknown := [name for name in names if name not in defined]:
        raise UserError(f"{VOTING} has no {unknown[0]!r}; it has {', '.join(sorted(defined))}")
    taken: set[str] = set()
    while more := set(names) - taken:
        taken |= more
        names = [name for each in more for name in _used(defined[each]) if name in defined]
    if not taken:
        return [], ast.Module([], [])
    nodes = [node for name, node in defined.items() if name in taken]
    used = set().union(*map(_used, nodes))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    for each in imports:
        each.names = [alias for alias in each.names if (alias.asname or alias.name) in used]
    imports = [each for each in imports if each.names]
    imports.append(ast.ImportFrom("types", [ast.alias("SimpleNamespace")], 0))
    lines = [f"    {name}={name}," for name in defined if name in taken]
    space = "\n".join([f"{HELPERS} = SimpleNamespace(", *lines, ")"])
    title = _as_comment(ast.get_docstring(tree) or "")
    return [title, *(_source(voting, node) for node in nodes), space], ast.Module(list(imports), [])


def _merged(trees: Iterable[ast.Module]) -> str:
    """All imports but those of one another, each once, the standard library's before openai."""
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Import):
                plain.update(map(ast.unparse, node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("env."):
                named.setdefault(node.module, set()).update(map(ast.unparse, node.names))
    standard = [f"import {name}" for name in sorted(plain - {"openai"})]
    standard += [f"from {name} import {', '.join(sorted(named[name]))}" for name in sorted(named)]
    return "\n".join([*standard, "", "import openai"])


def _body(text: str, tree: ast.Module) -> str:
    """A module's text behind its docstring and imports."""
    nodes = tree.body
    last = max(k for k, node in enumerate(nodes) if k == 0 or isinstance(node, (ast.Import, ast.ImportFrom)))
    return "\n".join(text.splitlines()[nodes[last].end_lineno :]).strip("\n")


def _replaced(text: str, instead: dict[str, str]) -> str:
    """A module's text with other definitions of some names."""
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        if _name(node) in instead:
            lines[node.lineno - 1 : node.end_lineno] = instead[_name(node)].splitlines()
    return "\n".join(lines)


def _name(node: ast.stmt) -> str:
    """What a top-level statement defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def _used(node: ast.stmt) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _source(text: str, node: ast.stmt) -> str:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
