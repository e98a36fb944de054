"""Teachers that are not open_clip's: what a plug-in has to say and do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprd import plugins
from cliprd.errors import ParamsError

if TYPE_CHECKING:
    import torch

    from cliprd.models.encoder import Encoder

RESUME = ".unfinished"  # a folder in the teacher's for what an interrupted training needs; removed when it is done

Settings = Mapping[str, Any]
Commit = Callable[[str], None]
Train = Callable[[Any, Path, Settings, "torch.device", Commit], tuple["Encoder", Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class TeacherPlugin:
    """A teacher by the name under which it is registered.

    The module of these functions is imported whenever the teacher is named: import torch and models inside them.
    `settings` are `teacher.settings` of the parameters (of `aligned`, its own section), plain values.

    Attributes:
        load: `(folder, settings, device)` → the frozen `Encoder`: `id`, `weights_sha256`, `image`, `tokenizer`, `dim`,
            `logit_scale` and the rest of that protocol. `folder` is the stage's; None where the teacher is loaded by
            its name, without a stage (only of plug-ins that train nothing).
        dim: `(settings)` → width of its embeddings, known before anything is loaded.
        version: `(settings)` → what identifies weights that may change under the same settings (a file's sha256, a
            release). None: name, settings and code say it all.
        train: `(shards, folder, settings, device, commit)` → the trained teacher, as `load` would open it from
            `folder`, and facts of the training, as JSON. `shards` is a `ShardSet`. What it puts into
            `folder / RESUME` outlives a kill; where the output is in S3, from `commit` of its name in `folder` on.
            None: nothing is trained.
    """

    load: Callable[[Path | None, Settings, torch.device], Encoder]
    dim: Callable[[Settings], int]
    version: Callable[[Settings], str] | None = None
    train: Train | None = None


def register_teacher(
    name: str,
    *,
    load: Callable[[Path | None, Settings, torch.device], Encoder],
    dim: Callable[[Settings], int],
    version: Callable[[Settings], str] | None = None,
    train: Train | None = None,
) -> None:
    """Make a teacher that `teacher.name` can name, in this process; the arguments are those of `TeacherPlugin`.

    An installed package does the same for every process by an entry point `name = "module:plugin"` in the group
    `cliprd.teachers`, `plugin` a `TeacherPlugin`. An edit of the module of `load`, or of what that imports from its own
    package, makes another teacher.

    Raises:
        ValueError: the name is not made of lower-case letters, digits and _, or `load` was typed into an interpreter.
        TypeError: `load` is no plain function of a module.
    """
    plugins.check_name(name)
    plugin = TeacherPlugin(load=load, dim=dim, version=version, train=train)
    plugins.teachers.register(name, plugin, plugins.module_of(load))


def plugin_of(name: str) -> TeacherPlugin:
    """The plug-in that a teacher's name means.

    Raises:
        ParamsError: none of that name is registered, or it is no `TeacherPlugin`.
    """
    plugin = plugins.teachers.get(name)
    if not isinstance(plugin, TeacherPlugin):
        raise ParamsError(
            f"The teacher '{name}' is a {type(plugin).__name__}, not a cliprd.models.plugin.TeacherPlugin."
        )
    return plugin


def code_of(name: str) -> tuple[str, ...]:
    """The module that holds a teacher's code, for `artifact.identity`; () for open_clip's, and for what is unknown."""
    return () if ":" in name else plugins.teachers.code(name)


def code_in(stage: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """`code_of` the teacher in a folder, by its manifest; () for a student's."""
    name = params.get("teacher", {}).get("name") if stage == "teacher" else None
    return code_of(name) if name else ()
