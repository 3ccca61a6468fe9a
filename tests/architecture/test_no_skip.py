"""The switch of tests/conftest.py that CI relies on: where no skip is allowed, none passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SKIPS = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="by mark")
def test_skipped_by_a_mark():
    pass

def test_skipped_at_run_time():
    pytest.skip("a store is missing")

@pytest.mark.xfail(reason="known")
def test_expected_to_fail():
    raise AssertionError
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    shutil.copy(CONFTEST, pytester.path / "conftest.py")
    pytester.makepyfile(
        test_skips=SKIPS, test_module="import pytest\npytest.importorskip('nowhere')"
    )
    return pytester


def test_a_skip_fails_and_says_what_is_missing(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMSHEPHERD_NO_SKIP", "1")
    result = suite.runpytest_subprocess("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, failed=1, errors=2, xfailed=1)
    result.stdout.fnmatch_lines(["*a store is missing*", "*VMSHEPHERD_NO_SKIP=1*"])


def test_a_skip_is_a_skip_elsewhere(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VMSHEPHERD_NO_SKIP", raising=False)
    suite.runpytest_subprocess().assert_outcomes(passed=1, skipped=3, xfailed=1)
