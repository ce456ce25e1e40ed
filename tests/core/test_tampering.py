"""What in a story's change bends its own proof, and what only looks like it: diffs as a table."""

import pytest

from storyloop.core.facts import ChangeKind, Suspicion, SuspicionKind
from storyloop.core.languages import belongs_to_tests
from storyloop.core.tampering import Edit, Proofs, new_tests, suspicions


def diff(path: str, *lines: str) -> Edit:
    """A file that was there before and still is; `+` and `-` begin its lines."""
    came, went = (tuple(line[1:] for line in lines if line[0] == sign) for sign in "+-")
    return Edit(path=path, kind=ChangeKind.MODIFIED, added=came, removed=went)


def created(path: str, *lines: str) -> Edit:
    return Edit(path=path, kind=ChangeKind.CREATED, added=lines)


def deleted(path: str, *lines: str) -> Edit:
    return Edit(path=path, kind=ChangeKind.DELETED, removed=lines)


ADDS = ("def test_adds():", "    assert add(1, 2) == 3")
TAKES = ("def test_takes():", "    assert take(3, 2) == 1")
PY = "tests/test_sums.py"

PYTEST = Proofs(checks=("pytest -q",))
SCRIPT = Proofs(checks=("sh scripts/ci.sh --all && ./gate",))
MAKE = Proofs(checks=("make lint test",))
NPM = Proofs(checks=("npm run lint && npm test",))

# what bends it: the change (its first file is the bent one), what is run, and the kinds of the suspicions
BENT: dict[str, tuple[list[Edit], Proofs, str]] = {
    "a script that a check runs": ([diff("scripts/ci.sh", "-pytest", "+true")], SCRIPT, "check-changed"),
    "the same, deleted": ([deleted("scripts/ci.sh", "pytest")], SCRIPT, "check-changed"),
    "a program of the project that a check runs": ([diff("gate", "-exec pytest")], SCRIPT, "check-changed"),
    "a script of a criterion that is named as a proof": (
        [diff("bin/verify.py", "-sys.exit(1)")],
        Proofs(verify=("python3 -u bin/verify.py",)),
        "check-changed",
    ),
    "tests in shell that a check runs": (
        [diff("tests/run.sh", "-./cli --help", "+./cli --help || true")],
        Proofs(checks=("bash -e tests/run.sh",)),
        "check-changed failure-swallowed",
    ),
    "our own settings": ([diff("storyloop.toml", '-test = "pytest"')], PYTEST, "check-changed"),
    "our prompts": ([diff("storyloop-prompts/review.j2", "-Look")], PYTEST, "check-changed"),
    "a recipe of make": ([diff("Makefile", "-\tpytest -q", "+\t-pytest -q")], MAKE, "check-changed"),
    "a target of make once more": ([diff("Makefile", "+test: ;")], MAKE, "check-changed"),
    "a script of npm": (
        [diff("package.json", '-    "test": "jest",', '+    "test": "jest --passWithNoTests",')],
        NPM,
        "test-config-changed failure-swallowed",
    ),
    "one that npm runs before it": ([diff("package.json", '+    "pretest": "x",')], NPM, "test-config-changed"),
    "pytest.ini, though it is new": ([created("pytest.ini", "[pytest]")], PYTEST, "test-config-changed"),
    "a key of pytest in pyproject.toml": (
        [diff("pyproject.toml", '+addopts = "-k fast"')],
        PYTEST,
        "test-config-changed",
    ),
    "the coverage that is demanded": (
        [diff("pyproject.toml", "-fail_under = 90", "+fail_under = 10")],
        PYTEST,
        "test-config-changed",
    ),
    "a hook in conftest.py": (
        [diff("tests/conftest.py", "+def pytest_collection_modifyitems(items):", "+    items.clear()")],
        PYTEST,
        "test-config-changed",
    ),
    "files that are not collected": (
        [created("conftest.py", 'collect_ignore = ["test_sums.py"]')],
        PYTEST,
        "test-config-changed",
    ),
    "tox": ([diff("tox.ini", "-commands = pytest")], PYTEST, "test-config-changed"),
    "vitest": ([diff("vitest.config.mts", "+exclude: ['a'],")], NPM, "test-config-changed"),
    "mocha": ([deleted(".mocharc.yml", "spec: test")], NPM, "test-config-changed"),
    "tests of cargo": ([diff("Cargo.toml", "+test = false")], PYTEST, "test-config-changed"),
    "tests of maven": ([diff("pom.xml", "+<skipTests>true</skipTests>")], PYTEST, "test-config-changed"),
    "what a linter looks for": ([diff(".flake8", "+ignore = F")], PYTEST, "check-changed"),
    "a workflow": (
        [diff(".github/workflows/ci.yml", "+    continue-on-error: true")],
        PYTEST,
        "ci-changed failure-swallowed",
    ),
    "another CI": ([created(".gitlab-ci.yml", "test: {}")], PYTEST, "ci-changed"),
    "a third one": ([deleted("ci/Jenkinsfile", "node {}")], PYTEST, "ci-changed"),
    "a file that git ignores": ([diff(".gitignore", "+tests/test_sums.py")], PYTEST, "files-ignored"),
    "a file of tests": ([deleted(PY, *ADDS)], PYTEST, "tests-deleted"),
    "a test of two": ([diff(PY, *(f"-{line}" for line in TAKES))], PYTEST, "tests-removed"),
    "a test that is no longer one": ([diff(PY, "-def test_adds():", "+def _test_adds():")], PYTEST, "tests-removed"),
    "a test that became a comment": (
        [diff(PY, *(s + line for line in ADDS for s in ("-", "+# ")))],
        PYTEST,
        "tests-removed",
    ),
    "one of three that moved": (
        [deleted(PY, *ADDS, *TAKES), created("tests/test_all.py", *ADDS)],
        PYTEST,
        "tests-deleted",
    ),
    "a mark": ([diff(PY, "+@pytest.mark.skip(reason='slow')")], PYTEST, "tests-skipped"),
    "a mark on a condition": ([diff(PY, "+@pytest.mark.skipif(True, reason='')")], PYTEST, "tests-skipped"),
    "a failure that is expected": ([diff(PY, "+    @unittest.expectedFailure")], PYTEST, "tests-skipped"),
    "it.skip": ([diff("src/a.test.ts", "-it('adds', f)", "+it.skip('adds', f)")], NPM, "tests-skipped"),
    "xit": ([diff("spec/a.js", "-  it('adds', f)", "+  xit('adds', f)")], NPM, "tests-skipped"),
    "only one": ([diff("src/a.spec.js", "-test('a', f)", "+test.only('a', f)")], NPM, "tests-skipped"),
    "t.Skip": ([diff("sum_test.go", "+\tt.Skip()")], PYTEST, "tests-skipped"),
    "#[ignore] beside the work": ([diff("src/lib.rs", "+    #[ignore]")], PYTEST, "tests-skipped"),
    "@Disabled": ([diff("src/test/java/SumTest.java", "+  @Disabled")], PYTEST, "tests-skipped"),
    "pending": ([diff("spec/sum_spec.rb", "+    pending 'later'")], PYTEST, "tests-skipped"),
    "an assertion": ([diff(PY, "-    assert add(1, 2) == 3")], PYTEST, "assertions-weakened"),
    "an assertion that became a comment": (
        [diff(PY, "-    assert add(1, 2) == 3", "+    # assert add(1, 2) == 3")],
        PYTEST,
        "assertions-weakened",
    ),
    "assert True": ([diff(PY, "-    assert a == 3", "+    assert True")], PYTEST, "assertions-weakened"),
    "expect(true)": (
        [diff("a.test.js", "-  expect(add(1, 2)).toBe(3)", "+  expect(true).toBe(true)")],
        NPM,
        "assertions-weakened",
    ),
    "an assertion of a test that moved": (
        [deleted(PY, *ADDS), created("tests/test_all.py", ADDS[0])],
        PYTEST,
        "assertions-weakened",
    ),
    "a test in Go": ([diff("sum_test.go", "-func TestAdds(t *testing.T) {")], PYTEST, "tests-removed"),
    "a test in Rust": (
        [diff("src/lib.rs", "-    #[test]", "-    #[should_panic]", "-    fn adds() {")],
        PYTEST,
        "tests-removed",
    ),
    "a test in Java": (
        [diff("SumTest.java", "-  @Test", "-  void adds() {", "-    assertEquals(3, add(1, 2));", "-  }")],
        PYTEST,
        "tests-removed",
    ),
    "a test in Ruby": ([diff("spec/sum_spec.rb", '-  it "adds" do')], PYTEST, "tests-removed"),
    "a test in PHP": ([diff("tests/SumTest.php", "-  public function testAdds()")], PYTEST, "tests-removed"),
    "a file of tests in shell": ([deleted("tests/cli.sh", "./cli | grep x")], PYTEST, "tests-deleted"),
}

# what does not: the change, and what is run
STRAIGHT: dict[str, tuple[list[Edit], Proofs]] = {
    "work": ([diff("src/sums.py", "-    assert a", "+    return a or exit(0)")], PYTEST),
    "a new test": ([created(PY, *ADDS)], PYTEST),
    "a test more, an assertion more": ([diff(PY, *(f"+{line}" for line in TAKES))], PYTEST),
    "a test under another name": ([diff(PY, "-def test_adds():", "+def test_adds_two():")], PYTEST),
    "an assertion that says more": ([diff(PY, "-    assert a", "+    assert a == 3")], PYTEST),
    "tests that moved to another file": ([deleted(PY, *ADDS), created("tests/unit/test_sums.py", *ADDS)], PYTEST),
    "a test that moved into a class": (
        [diff(PY, *(f"-{line}" for line in ADDS), *(f"+    {line}" for line in ADDS))],
        PYTEST,
    ),
    "a mark that moved with its test": (
        [deleted(PY, "@pytest.mark.skip", *ADDS), created("tests/test_all.py", "@pytest.mark.skip", *ADDS)],
        PYTEST,
    ),
    "tests in shell that moved": ([deleted("tests/cli.sh", "./cli"), created("tests/bin/cli.sh", "./cli")], PYTEST),
    "a mark that went": ([diff(PY, "-@pytest.mark.skip")], PYTEST),
    "words about a mark": ([diff(PY, "+# pytest.mark.skip is no way out")], PYTEST),
    "a test that skips nothing": ([diff("sum_test.go", "+\tskip := f()")], PYTEST),
    "a helper of tests, deleted": ([deleted("tests/__init__.py")], PYTEST),
    "a fixture": ([diff("tests/conftest.py", "+@pytest.fixture", "+def base():", "+    return 1")], PYTEST),
    "a dependency": (
        [diff("pyproject.toml", '+dependencies = ["attrs"]'), diff("package.json", '+"jest": "^29",')],
        NPM,
    ),
    "another script of npm": ([diff("package.json", '+    "docs": "typedoc",')], NPM),
    "another target of make": ([diff("Makefile", "+docs:", "+\tmkdocs build")], MAKE),
    "a makefile that no check runs": ([diff("Makefile", "-\tpytest -q")], PYTEST),
    "what builds leave": (
        [diff(".gitignore", "+# built", "+node_modules/", "+__pycache__/", "+*.log", "+!dist")],
        PYTEST,
    ),
    "a new script that a check names": ([created("scripts/ci.sh", "pytest")], SCRIPT),
    "the program itself, run by its proof": (
        [diff("greet.py", "-print('hi')")],
        Proofs(verify=("python3 greet.py | grep hello",)),
    ),
    "tests that a criterion names": (
        [diff(PY, *(f"+{line}" for line in TAKES))],
        Proofs(verify=(f"pytest {PY}", f"python {PY}")),
    ),
    "what a check looks at": ([diff("src/app.js", "-a()")], Proofs(checks=("eslint src/app.js",))),
    "a module that is called spec": ([deleted("src/spec.py", "assert x"), diff("src/latest.py", "-assert x")], PYTEST),
    "CI that the story asks for": (
        [created(".github/workflows/ci.yml", "on: push")],
        Proofs(asked="Add a workflow, .github/workflows/ci.yml."),
    ),
    "a file of tests that the story wants gone": ([deleted(PY, *ADDS)], Proofs(asked="Delete `test_sums.py`")),
    "pictures": ([Edit(path="tests/a.png", kind=ChangeKind.DELETED)], PYTEST),
}


@pytest.mark.parametrize(("edits", "proofs", "expected"), BENT.values(), ids=BENT)
def test_what_bends_a_proof_is_seen(edits: list[Edit], proofs: Proofs, expected: str) -> None:
    """Each by its kind and its file."""
    found = suspicions(edits, proofs)
    assert " ".join(suspicion.kind for suspicion in found) == expected
    assert {suspicion.path for suspicion in found} == {edits[0].path}


@pytest.mark.parametrize(("edits", "proofs"), STRAIGHT.values(), ids=STRAIGHT)
def test_what_bends_nothing_is_not_suspected(edits: list[Edit], proofs: Proofs) -> None:
    """Work, new tests, tests that moved, what the story asks for."""
    assert suspicions(edits, proofs) == ()


def test_a_suspicion_says_what_to_look_at() -> None:
    """The line itself, how many more there are, and the names of tests that went."""
    edits = [
        diff(PY, *(f"-{line}" for line in (*ADDS, *TAKES)), "+@pytest.mark.skip", "+pytest.skip()"),
        diff("tox.ini", "-commands = pytest"),
    ]
    assert suspicions(edits, PYTEST) == (
        Suspicion(SuspicionKind.TESTS_REMOVED, PY, "2 tests fewer than before: test_adds, test_takes went"),
        Suspicion(SuspicionKind.TESTS_SKIPPED, PY, "tests are left out: `@pytest.mark.skip` and 1 more"),
        Suspicion(SuspicionKind.TEST_CONFIG_CHANGED, "tox.ini", "how tests are run was modified: `-commands = pytest`"),
    )


def test_no_change_is_told_without_end() -> None:
    """So many suspicions, so much of a line."""
    many = [diff(f"tests/test_{n}.py", f"+pytest.skip({'x' * 1000})") for n in range(50)]
    found = suspicions(many, PYTEST)
    assert len(found) == 20
    assert max(len(str(suspicion)) for suspicion in found) < 250


# paths of test files in which a test stands that stood nowhere before
NEW: dict[str, tuple[list[Edit], tuple[str, ...]]] = {
    "a new file": ([created(PY, *ADDS)], (PY,)),
    "a test more": ([diff(PY, *(f"+{line}" for line in TAKES))], (PY,)),
    "in two languages": (
        [created("a_test.go", "func TestA(t *testing.T) {"), created("a.test.ts", "it(`adds`, f)"), diff("a.py", "+x")],
        ("a_test.go", "a.test.ts"),
    ),
    "a new file of tests that have no names": ([created("tests/cli.sh", "./cli")], ("tests/cli.sh",)),
    "a file that moved": ([deleted(PY, *ADDS), created("tests/test_all.py", *ADDS)], ()),
    "a line more in a test": ([diff(PY, "+    assert a == 3"), diff("tests/cli.sh", "+./cli -v")], ()),
    "a helper": ([created("tests/makers.py", "def story(): ...")], ()),
    "a test beside the work, in its own file": ([diff("src/lib.rs", "+#[test]", "+fn adds() {")], ()),
}


@pytest.mark.parametrize(("edits", "expected"), NEW.values(), ids=NEW)
def test_new_tests_are_told_from_changed_ones(edits: list[Edit], expected: tuple[str, ...]) -> None:
    """A name that is nowhere among the removed lines."""
    assert new_tests(edits) == expected


def test_what_tests_need_goes_with_them_and_the_work_does_not() -> None:
    """And what git ignores is the same with and without the work."""
    of_tests = [PY, "tests/data/a.json", "pkg/testdata/x", "conftest.py", ".gitignore", "src/a.test.ts", "spec/help.rb"]
    of_work = ["src/sums.py", "src/spec/parser.py", "README.md", "pyproject.toml", "src/lib.rs", "src/attest.py"]
    assert [path for path in of_tests + of_work if belongs_to_tests(path)] == of_tests
