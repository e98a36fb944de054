"""Components `gate`, `promote` and `refuse`."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output


def gate(
    settings: dict,
    compare: dict,
    tracking: dict,
    champion: str,
    run: str,
    publish: bool,
    results: Input[Dataset],
    decision: Output[Dataset],
    gain: Output[Metrics],
) -> bool:
    """Decide whether the student is better than the champion.

    Args:
        settings: section `promote` of params.yaml; its champion is replaced by the input below.
        compare: section `compare` of params.yaml: the protocol.
        tracking: section `tracking` of params.yaml: the server of models:/.
        champion: models:/<name>, or the champion's folder as s3:// prefix.
        run: id of the run, under which `record` finds what was said here.
        publish: whether the run goes on to promote or keep the student, for `record`.
        results: the student's scores.

    Returns:
        Output: whether it is to be promoted.
        decision: decision.json with the reason and its figures.
        gain: difference to the champion in points, where there is one.
    """
    from cliprd.kubeflow import component

    sections = {"promote": {**settings, "champion": champion}, "compare": compare, "tracking": tracking}
    return component.gate(sections, results, decision, gain, run_name=run, publish=publish)


def promote(
    settings: dict,
    tracking: dict,
    champion: str,
    run: str,
    model: Input[Model],
    results: Input[Dataset],
    decision: Input[Dataset],
    promoted: Output[Metrics],
) -> None:
    """Make the student the champion.

    Args:
        settings: section `promote` of params.yaml; its champion is replaced by the input below.
        tracking: section `tracking` of params.yaml: the server of models:/.
        champion: models:/<name>, or the champion's folder as s3:// prefix.
        run: id of the run, under which `record` finds what was done here.
        model: the student.
        results: its scores.
        decision: of the gate.

    Returns:
        promoted: the champion's new version.
    """
    from cliprd.kubeflow import component

    sections = {"promote": {**settings, "champion": champion}, "tracking": tracking}
    component.promote(sections, model, results, decision, promoted, run_name=run)


def refuse(
    settings: dict,
    tracking: dict,
    champion: str,
    run: str,
    model: Input[Model],
    results: Input[Dataset],
    decision: Input[Dataset],
    refused: Output[Metrics],
) -> None:
    """Keep a student that the gate refused, with the decision, beside the champion, which stays.

    Args:
        settings: section `promote` of params.yaml; its champion is replaced by the input below.
        tracking: section `tracking` of params.yaml: the server of models:/.
        champion: models:/<name>, or the champion's folder as s3:// prefix.
        run: id of the run, which is noted as who asked.
        model: the student.
        results: its scores.
        decision: of the gate.

    Returns:
        refused: the student's version; none where it is the champion already.
    """
    from cliprd.kubeflow import component

    sections = {"promote": {**settings, "champion": champion}, "tracking": tracking}
    component.refuse(sections, model, results, decision, refused, run_name=run)
