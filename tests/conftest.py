"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# Time is no property of the code: on a machine that does other work too, any example may take long.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
