"""Component `record`."""

from kfp.dsl import Markdown, Output, PipelineTaskFinalStatus


def record(champion: str, ending: Output[Markdown], status: PipelineTaskFinalStatus) -> None:
    """Record how the run ended, whatever happened in it.

    Args:
        champion: folder of the champion, as s3:// prefix: the record joins its `runs/`.
        status: of the run; Kubeflow gives it.

    Returns:
        ending: state, and the error where there was one.
    """
    from cliprd import component

    component.record(
        champion,
        ending.path,
        run=status.pipeline_job_resource_name,
        task=status.pipeline_task_name,
        state=status.state,
        error=status.error_message or "",
    )
