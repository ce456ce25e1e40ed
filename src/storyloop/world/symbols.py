"""Symbols: the names that a file defines at its top level, read by tree-sitter where its grammar is installed.

Both come with the extra `symbols`. Without them, and in other languages, there is only what agents say. Names inside
of classes, conditions and modules are left out: the knowledge in a prompt has room for a few.
"""

import functools
import importlib
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from storyloop.ports.texts import SymbolsReader

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_GRAMMARS = {
    ".py": "tree_sitter_python",
    ".js": "tree_sitter_javascript",
    ".mjs": "tree_sitter_javascript",
    ".cjs": "tree_sitter_javascript",
    ".jsx": "tree_sitter_javascript",
    ".go": "tree_sitter_go",
    ".rs": "tree_sitter_rust",
}
# Kinds of nodes, of all the grammars together: what has a name to tell, what may hold such nodes, and what makes a
# JavaScript variable as good as a function.
_NAMED = {
    *("function_definition", "class_definition"),
    *("function_declaration", "generator_function_declaration", "class_declaration"),
    *("method_declaration", "type_spec", "type_alias"),
    *("function_item", "struct_item", "enum_item", "union_item", "trait_item", "type_item", "macro_definition"),
}
_HOLDING = {
    *("decorated_definition", "export_statement", "type_declaration"),
    *("lexical_declaration", "variable_declaration"),
}
_CALLED = {"arrow_function", "function_expression", "generator_function", "class"}
_MOST = 20
_LONGEST = 100  # bytes of a name


def symbols_reader(path: str) -> SymbolsReader | None:
    """What reads the symbols of such a file, in order, 20 at most; None where nothing here can."""
    grammar = _GRAMMARS.get(PurePosixPath(path).suffix)
    parser = None if grammar is None else _parser(grammar)
    return None if parser is None else functools.partial(_symbols, parser)


@functools.cache
def _parser(grammar: str) -> "Parser | None":
    try:
        from tree_sitter import Language, Parser

        language: object = importlib.import_module(grammar).language()
        return Parser(Language(language))
    except (ImportError, ValueError):  # not installed, or made for another tree-sitter, which is as good as that
        return None


def _symbols(parser: "Parser", content: bytes) -> tuple[str, ...]:
    names = (name.decode(errors="replace") for name in _names(parser.parse(content).root_node))
    return tuple(islice(dict.fromkeys(names), _MOST))


def _names(node: "Node") -> Iterator[bytes]:
    for child in node.named_children:
        if child.type in _HOLDING:
            yield from _names(child)
        elif child.type in _NAMED or _is_callable(child):
            name = child.child_by_field_name("name")
            if name is not None and name.text is not None and len(name.text) <= _LONGEST:
                yield name.text


def _is_callable(node: "Node") -> bool:
    value = node.child_by_field_name("value") if node.type == "variable_declarator" else None
    return value is not None and value.type in _CALLED
