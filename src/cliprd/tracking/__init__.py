"""MLflow: runs of trainings under their ablation's, scores and reports."""

from cliprd.tracking.check import check, check_start
from cliprd.tracking.runs import RUN_FILE, flush, run_of, send_left, training_run
from cliprd.tracking.scores import log_report, log_scores
from cliprd.tracking.training import Training, describe

__all__ = [
    "RUN_FILE",
    "Training",
    "check",
    "check_start",
    "describe",
    "flush",
    "log_report",
    "log_scores",
    "run_of",
    "send_left",
    "training_run",
]
