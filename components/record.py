"""Component `record`."""

from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus


def record(champion: str, run: str, ending: Output[Markdown], status: PipelineTaskFinalStatus) -> str:
    """Record how the run ended, whatever happened in it.

    Args:
        champion: folder of the champion, as s3:// prefix: the record joins its `runs/`.
        run: id of the run, as the UI shows it.
        status: of the run; Kubeflow gives it.

    Returns:
        Output: promoted, not promoted or failed.
        ending: that, the reason, and Kubeflow's own word.
    """
    from cliprd import component

    error = status.error_message or ""
    return component.record(champion, ending.path, run_name=run, state=status.state, error=error)
