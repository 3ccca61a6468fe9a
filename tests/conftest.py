"""What holds for every test: skips may be refused, and Hypothesis is repeatable in CI.

`VMSHEPHERD_NO_SKIP=1` turns each skip, of a test or of a module, into a failure that says what is
missing.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any, TypeVar

import hypothesis
import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# Machines are shared and slow at times: what takes long is told by the timeout of the whole test.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of each phase of a test."""
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The report of each module: `importorskip` skips it as a whole."""
    return refuse_skip((yield))


def refuse_skip(report: Report) -> Report:
    """A failure in place of a skip, where none is allowed; an expected failure stays one."""
    allowed = os.environ.get("VMSHEPHERD_NO_SKIP") != "1"
    if report.skipped and not allowed and not hasattr(report, "wasxfail"):
        reason: Any = report.longrepr
        said = reason[2] if isinstance(reason, tuple) else str(reason)
        report.outcome = "failed"
        report.longrepr = f"{said}\n(no skip is allowed here: VMSHEPHERD_NO_SKIP=1)"
    return report
