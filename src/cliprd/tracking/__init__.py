"""MLflow: runs of trainings under their ablation's, scores and reports, read from what stages leave behind."""

from cliprd.tracking.check import check
from cliprd.tracking.follow import following
from cliprd.tracking.runs import RUN_FILE, catch_up, run_of
from cliprd.tracking.training import Training, describe

__all__ = ["RUN_FILE", "Training", "catch_up", "check", "describe", "following", "run_of"]
