"""Loss terms that users register: found by name, checked, and identified by their code."""

from __future__ import annotations

from cliprd import plugins
from cliprd.errors import ParamsError
from cliprd.losses import Term, check_term_name, inputs_of
from cliprd.params import Distill


def register_term(name: str, function: Term) -> None:
    """Make `function` a loss term that `distill.weights.extra: {name: weight}` can name, in this process.

    An installed package does the same for every process by an entry point `name = "module:function"` in the group
    `cliprd.terms`; its name is checked when it is used. An edit of the function's module, or of what it imports from
    its own package, starts a new training.

    Args:
        name: lower-case letters, digits and _; not one of cliprd's own terms, not ending in `scale`. A name that is
            registered already gets the new function.
        function: pure, on tensors that it names by its parameters, among `student_image`, `student_text`
            `[N, student_dim]`, `projected_image`, `projected_text`, `teacher_image`, `teacher_text` `[N, teacher_dim]`
            (all float32, L2-normalised, of the whole batch), `student_scale`, `teacher_scale` (scalars, exp'd). It
            returns a scalar: a mean over the N pairs, before its weight.

    Raises:
        ValueError: the name is taken or unfit, or the function was typed into an interpreter.
        TypeError: the function takes something else, or is no plain function of a module.
    """
    check_term_name(name)
    inputs_of(name, function)
    plugins.terms.register(name, function, plugins.module_of(function))


def functions(distill: Distill) -> dict[str, Term]:
    """The extra terms of a training by name.

    Raises:
        ParamsError: one is not registered, or cannot be used.
    """
    found: dict[str, Term] = {}
    for name in distill.weights.of_terms():
        found[name] = plugins.terms.get(name)
        try:
            check_term_name(name)
            inputs_of(name, found[name])
        except (TypeError, ValueError) as error:
            raise ParamsError(f"distill.weights.extra.{name}: {error}.", "Mend its function.") from error
    return found
