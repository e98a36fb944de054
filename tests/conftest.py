"""Settings of all tests, and what a run says before its end."""

import pytest
from hypothesis import HealthCheck, settings

# Time is no property of the code: on a machine that does other work too, any example may take long.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


class Failures:
    """Prints each failure when it happens: a run that is stopped before its end would keep them to itself."""

    def __init__(self, terminal: pytest.TerminalReporter):
        self.terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.write_line(f"\n{report.when} of {report.nodeid} failed after {report.duration:.0f} s")
            self.terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)  # the terminal's own plug-in comes first
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(terminal))
