"""Lineage: the data, code, teacher, parameters and seed of an artifact."""

from cliprd.lineage.changes import Change as Change
from cliprd.lineage.changes import changes as changes
from cliprd.lineage.common import NAME as NAME
from cliprd.lineage.common import SCHEMA as SCHEMA
from cliprd.lineage.describe import describe as describe
from cliprd.lineage.find import of as of
from cliprd.lineage.record import PARTS as PARTS
from cliprd.lineage.record import code_parts as code_parts
from cliprd.lineage.record import load as load
from cliprd.lineage.record import made_of as made_of
from cliprd.lineage.record import of_student as of_student
from cliprd.lineage.record import of_teacher as of_teacher
from cliprd.lineage.record import summary as summary
from cliprd.lineage.record import with_scores as with_scores
from cliprd.lineage.record import write as write
