"""All sections together."""

from __future__ import annotations

from cliprd.params.base import Section
from cliprd.params.benchmark import Benchmark, Compare
from cliprd.params.data import Augmentation, Data
from cliprd.params.distill import Ablation, Distill
from cliprd.params.kubernetes import Kubernetes
from cliprd.params.promote import Promote, Retrain
from cliprd.params.student import Student
from cliprd.params.teacher import Cache, Teacher
from cliprd.params.tracking import Tracking


class Params(Section):
    """The parameter tree of params.yaml."""

    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    teacher: Teacher = Teacher()
    cache: Cache = Cache()
    student: Student = Student()
    distill: Distill = Distill()
    ablation: Ablation = Ablation()
    benchmark: Benchmark = Benchmark()
    compare: Compare = Compare()
    promote: Promote = Promote()
    retrain: Retrain = Retrain()
    tracking: Tracking = Tracking()
    kubernetes: Kubernetes = Kubernetes()
