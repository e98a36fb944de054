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
            raise ValueError("credentials belong into MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN")
        return uri

    def in_pods(self) -> Tracking:
        """The section as a pod can use it: of addresses only a server's, as a file is another one in each pod."""
        return self if self.uri.startswith(("http://", "https://")) else self.model_copy(update={"uri": ""})
