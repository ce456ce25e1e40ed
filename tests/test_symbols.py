"""Symbols: what a file defines at its top level, where its grammar is installed."""

import subprocess
import sys

import pytest

from storyloop.world.symbols import symbols_reader

FILES = {
    "a.py": (
        b"import os\nX = 1\n@cache\nclass A:\n    def m(self): ...\nasync def f():\n    def g(): ...\ndef f(): ...\n",
        ("A", "f"),
    ),
    "lib/a.mjs": (
        b"export default class A { m() {} }\nexport const f = () => 1, k = 2\nfunction* g() {}\nvar h = class {}\n",
        ("A", "f", "g", "h"),
    ),
    "a.go": (
        b"package a\nfunc F() {}\nfunc (t *T) M() {}\ntype (\n\tT struct{}\n\tU = int\n)\nvar v = 1\n",
        ("F", "M", "T", "U"),
    ),
    "a.rs": (
        b"pub struct S;\nenum E {}\nimpl S { fn m() {} }\n#[x]\nfn f() {}\ntrait T {}\nmod tests { fn t() {} }\n",
        ("S", "E", "f", "T"),
    ),
    "broken.py": (b"def f(:\n\nclass A\n\ndef g(): ...\n\xff\0", ("f", "g")),
    "many.py": (b"".join(b"def f%d(): ...\n" % number for number in range(50)), tuple(f"f{n}" for n in range(20))),
    "long.py": (b"def %b(): ...\ndef f(): ...\n" % (b"n" * 101), ("f",)),
    "empty.py": (b"", ()),
}


@pytest.mark.parametrize("path", FILES)
def test_symbols_are_the_names_of_the_top_level_and_never_too_many(path: str) -> None:
    """Functions, classes and types, in order and each once; whatever the bytes are."""
    content, names = FILES[path]
    read = symbols_reader(path)
    assert read is not None
    assert read(content) == names


@pytest.mark.parametrize("path", ["README.md", "Makefile", "a.py.txt", '"caf\\351.py"'])
def test_a_file_of_another_language_has_no_reader(path: str) -> None:
    """Only what the agent said is known of it."""
    assert symbols_reader(path) is None


def test_without_its_grammar_a_language_is_as_any_other() -> None:
    """The extra is left out by most people; and what is not needed is not loaded."""
    code = """
import sys
from storyloop.world.symbols import symbols_reader
symbols_reader("a.txt")
print("tree_sitter" in sys.modules)
sys.modules["tree_sitter_go"] = None
print(symbols_reader("a.go"), symbols_reader("a.rs") is None)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\nNone False\n"
