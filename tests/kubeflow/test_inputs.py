"""A pipeline's inputs as they are given on a command line: any text is either right or one short line."""

import pytest

from cliprd.errors import ParamsError
from cliprd.kubeflow.inputs import check_inputs, parse_inputs

DEFINITIONS = {
    "method": {"parameterType": "STRING", "isOptional": True},
    "distill": {"parameterType": "STRUCT", "isOptional": True, "defaultValue": {}},
}
LONG = "/" * 5000


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (f"method={LONG}", "is no method"),
        (f"{LONG}=1", "the pipeline has no such input"),
        (f"={LONG}", "expected NAME=VALUE"),
        ("method=\udcff", "not UTF-8"),
        ("method=[a\nb", "not valid YAML"),
        ("distill=" + "9" * 5000, "5,000 digits"),
        ("distill=" + "[" * 100, "nested more than 64"),
        ("distill={epochs: 1, epochs: 2}", "is given twice"),
        ("distill={epochs: .nan}", "finite"),
        ("distill={seed: 9223372036854775808}", "64 bits"),
        ("distill={epochs: 2024-01-01}", "'distill.epochs'"),
    ],
    ids=lambda value: value[:30].encode("unicode_escape").decode(),
)
def test_wrong_text_is_one_short_line(item, said):
    with pytest.raises(ParamsError) as caught:
        check_inputs(parse_inputs([item]), DEFINITIONS)
    message = str(caught.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 500
