r"""Languages: how tests look in each, as a table; where its files lie, how a test begins, is skipped and asserts.

A change is looked at by its lines alone, so these are patterns and no parsers. `tests` is matched over many lines, and
its last group is the test's name; the others are matched in lines without the spaces around them. Longer lines are cut
before, and no pattern here backtracks over more than a line or two, because what they read may be made to be slow.
"""

import re
from typing import NamedTuple


class Language(NamedTuple):
    """What test code looks like in a language."""

    files: str
    tests: str
    skips: str
    asserts: str
    hollow: str  # an assertion that holds whatever the code does


_NEVER = r"(?!)"
_CODE = r"\.(?:php|cs|fs|swift|c|cc|cpp|m|exs?|clj|dart|lua|pl|t|sh|bash|r|jl|hs|ml|zig)$"
_JS = r"\.[cm]?[jt]sx?$"
_JVM = r"\.(?:java|kt|scala|groovy)$"
_ATTRIBUTES = r"(?:[@#]\[?\w[^\n]*\s+)*"

_PYTHON = Language(
    files=r"(?:^|/)(?:test_[^/]*|[^/]*_test|tests)\.py$|(?:^|/)tests?/.*\.py$",
    tests=r"^[ \t]*(?:async[ \t]+)?def[ \t]+(test\w*)",
    skips=r"\bmark\.(?:skip|skipif|xfail)\b|\bpytest\.(?:skip|xfail|importorskip)\(|@(?:unittest\.)?skip(?:If|Unless)?\b"
    r"|\bexpectedFailure\b|\bskipTest\(|\bSkipTest\b|\b__test__\s*=\s*False",
    asserts=r"^assert\b|\.assert\w*\(|\bpytest\.(?:raises|warns|fail)\(|\bself\.fail\(",
    hollow=r"^assert (?:True|1|not False|1 == 1)\s*(?:$|[,#])|\.assertTrue\(\s*True\b|^assert\b.*\bor True\b"
    r"|\b(?:sys\.|os\._)exit\(0\)",
)
_JAVASCRIPT = Language(
    files=rf"\.(?:test|spec|e2e|cy){_JS}|(?:^|/)(?:__tests__|tests?|e2e|cypress)/.*{_JS}|^spec/.*{_JS}",
    tests=r"^[ \t]*[xf]?(?:it|test|specify)(?:\.\w+(?:\([^()\n]*\))?)*\s*\(\s*([\"'`])([^\n]*?)\1",
    skips=r"^(?:it|test|describe|context|suite)(?:\.\w+)*\.(?:skip|skipIf|runIf|todo|fixme|failing|fails|only)\b"
    r"|^[xf](?:it|test|describe|context|specify)\(|\bpending\(|\bthis\.skip\(|\bt\.skip\(",
    asserts=r"\bexpect\s*\(|\bassert\b|\.should\b",
    hollow=r"\bexpect\(\s*(?:true|1)\s*\)|\bassert(?:\.ok|\.equal)?\(\s*true\b",
)
_GO = Language(
    files=r"_test\.go$",
    tests=r"^func\s+((?:Test|Fuzz|Example)\w*)\s*\(|\bt\.Run\(\s*\"([^\"\n]+)\"",
    skips=r"\b[tbf]\.Skip(?:f|Now)?\(|^//go:build ignore",
    asserts=r"\b[tb]\.(?:Error|Fatal)f?\(|\b[tb]\.Fail(?:Now)?\(|\b(?:assert|require)\.\w+\(",
    hollow=r"\b(?:assert|require)\.True\(\s*t\s*,\s*true\b",
)
_RUST = Language(
    files=r"(?:^|/)tests?/.*\.rs$|(?:^|/)(?:tests?|[^/]*_tests?)\.rs$",
    tests=rf"#\[(?:\w+::)?(?:test|rstest|test_case)\b[^\n]*\s+{_ATTRIBUTES}(?:pub\s+)?(?:async\s+)?fn\s+(\w+)",
    skips=r"#\[ignore\b|#\[cfg\(any\(\)\)\]",
    asserts=r"\b(?:debug_)?assert(?:_eq|_ne|_matches)?!|\bpanic!",
    hollow=r"\bassert!\(\s*true\b",
)
_RUST_SOURCES = _RUST._replace(files=r"\.rs$", asserts=_NEVER, hollow=_NEVER)  # tests stand in them, but also the work
_JAVA = Language(
    files=rf"(?:^|/)(?:Test[A-Z][^/]*|[^/]*(?:Tests?|IT|Spec|TestCase)){_JVM}|(?:^|/)src/\w*[tT]est/.*{_JVM}",
    tests=rf"@(?:Test|ParameterizedTest|RepeatedTest)\b(?:\([^)\n]*\))?\s+{_ATTRIBUTES}"
    r"(?:[\w<>]+[ \t]+){0,4}(\w+|`[^`\n]+`)\s*\(",
    skips=r"@(?:Disabled|Ignore)\b|\bassume(?:True\(\s*false|False\(\s*true)",
    asserts=r"\bassert\w*\s*\(|\bverify\s*\(|\bfail\s*\(",
    hollow=r"\bassert(?:True|That)?\s*\(\s*true\b",
)
_RUBY = Language(
    files=r"_(?:spec|test)\.rb$|(?:^|/)test_[^/]*\.rb$|(?:^|/)(?:spec|tests?)/.*\.rb$",
    tests=r"^[ \t]*[xf]?(?:it|specify|test|scenario|example)[ (]+([\"'])([^\n]*?)\1|^[ \t]*def[ \t]+(test_\w+)",
    skips=r"^(?:skip|pending)\b|^[xf](?:it|describe|context|specify|scenario)\b|,\s*(?:skip|pending|focus):",
    asserts=r"\bexpect\s*[({]|\bassert\w*|\brefute\w*|\.should\b|\bmust_\w+",
    hollow=r"\bexpect\(\s*true\s*\)|\bassert[ (]\s*true\b",
)
OTHER = Language(  # here a file may be a test without a word of it
    files=rf"(?:^|/)(?:tests?|__tests__|t)/.*{_CODE}|(?:^|[/._-])tests?[._-][^/]*{_CODE}|[._-]tests?{_CODE}"
    rf"|Tests?{_CODE}|\.(?:bats|snap|feature)$",
    tests=r"^[ \t]*(?:@test|test)[ \t]+([\"'])([^\n]*?)\1|\bfunc(?:tion)?[ \t]+(test\w*)"
    rf"|\[(?:Fact|Theory|Test|TestMethod)\b[^\n]*\]\s+{_ATTRIBUTES}(?:[\w<>]+[ \t]+){{0,4}}(\w+)\s*\(",
    skips=r"\bmarkTest(?:Skipped|Incomplete)\b|\[Ignore\b|\bSkip\s*=\s*\"|^skip\b|@tag :?skip\b|\bXCTSkip\b",
    asserts=r"\bassert\w*\b|\bexpect\w*\b|\bXCTAssert\w*",
    hollow=r"\b(?:XCTA|a)ssert(?:True)?\(\s*true\s*\)",
)
_LANGUAGES = (_PYTHON, _JAVASCRIPT, _GO, _RUST, _JAVA, _RUBY, OTHER)

# What lies beside tests and is theirs; rules of what git ignores are no work either.
_BESIDE = (
    r"(?:^|/)(?:tests?|__tests__|__snapshots__|__mocks__|testdata|fixtures|e2e)/|^spec/"
    r"|(?:^|/)(?:conftest\.py|\.gitignore)$"
)


def language_of_tests(path: str) -> Language | None:
    """The language of this test file; None when it is none."""
    return next((language for language in _LANGUAGES if re.search(language.files, path)), None)


def language_with_tests(path: str) -> Language | None:
    """The same, and of a source file that may hold tests beside the work."""
    return language_of_tests(path) or (_RUST_SOURCES if re.search(_RUST_SOURCES.files, path) else None)


def belongs_to_tests(path: str) -> bool:
    """Whether this file is a test, or what tests need, and not the work that they test."""
    return language_of_tests(path) is not None or bool(re.search(_BESIDE, path))


def names_of_tests(language: Language, lines: tuple[str, ...]) -> list[str]:
    """The names of the tests that begin in these lines."""
    found = re.finditer(language.tests, "\n".join(lines), re.MULTILINE)
    return [match[match.lastindex or 0] for match in found]
