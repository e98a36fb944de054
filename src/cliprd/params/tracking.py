"""Section `tracking`."""

from __future__ import annotations

from pydantic import (
    field_validator,
)

from cliprd.params.base import Section


class Tracking(Section):
    """MLflow."""

    uri: str = "sqlite:///mlflow.db"
    """Tracking server; empty: none. Credentials come from MLflow's environment variables, never from here."""
    experiment: str = "cliprd"

    @field_validator("uri")
    @classmethod
    def _without_credentials(cls, uri: str) -> str:
        if uri.startswith(("http://", "https://")) and "@" in uri.split("/")[2]:
            raise ValueError("credentials belong in MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN")
        return uri

    def in_pods(self) -> Tracking:
        """The section for use in a pod: without a file address, as each pod has files of its own."""
        return self if self.uri.startswith(("http://", "https://")) else self.model_copy(update={"uri": ""})
