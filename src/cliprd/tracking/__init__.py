"""MLflow: runs of trainings, scores and reports."""

from cliprd.tracking.runs import log_report, log_scores, training_run

__all__ = ["log_report", "log_scores", "training_run"]
