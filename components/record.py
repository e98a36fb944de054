"""Component `record`."""

from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus


def record(tracking: dict, champion: str, run: str, ending: Output[Markdown], status: PipelineTaskFinalStatus) -> str:
    """Record how the run ended, regardless of the result.

    Args:
        tracking: section `tracking` of params.yaml: the server of models:/.
        champion: models:/<name>, or the champion's folder as s3:// prefix: the record joins its notes on runs.
        run: id of the run, as the UI shows it.
        status: of the run; Kubeflow gives it.

    Returns:
        Output: promoted, not promoted or failed.
        ending: that, the reason, and Kubeflow's own word.
    """
    from cliprd.kubeflow import promotion

    error = status.error_message or ""
    sections = {"promote": {"champion": champion}, "tracking": tracking}
    return promotion.record(sections, ending.path, run_name=run, state=status.state, error=error)
