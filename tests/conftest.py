"""Settings of all tests, what a run says before its end, and which tests come first."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Time is no property of the code: on a machine that does other work too, any example may take long.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# Several tests run at once and most start processes: each has one thread, or they wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# open_clip imports transformers where it is installed, which is a third of a process' start. It is an extra: processes
# that tests start are without it, but where a test drops PYTHONPATH.
WITHOUT = str(Path(__file__).parent / "without")
os.environ["PYTHONPATH"] = WITHOUT
sys.path[:] = [path for path in sys.path if path != WITHOUT]

LONG = 60  # seconds


class Reporter:
    """Prints each failure when it happens, and what took long: a run that is stopped would keep them to itself."""

    def __init__(self, terminal: pytest.TerminalReporter):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.duration > LONG:
            self.terminal.write_line(f"\n{report.nodeid}: {report.when} {report.outcome} in {report.duration:.0f} s")
        if report.failed:
            self.terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)  # the terminal's own plug-in comes first
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Reporter(terminal))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests of whole stages first: one that began last would keep one worker busy and the others idle."""
    heavy = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: item.path not in heavy)
