"""The teacher's embeddings of every crop and caption, computed once: build, and read back only where they belong."""

from cliprd.teacher_cache.build import build
from cliprd.teacher_cache.format import Rows
from cliprd.teacher_cache.merge import check_parts, merge
from cliprd.teacher_cache.read import TeacherCache
from cliprd.teacher_cache.reuse import keep

__all__ = ["Rows", "TeacherCache", "build", "check_parts", "keep", "merge"]
