"""Schedulers: which task is each episode played on?"""

from __future__ import annotations

from curriculum.base import Curriculum
from curriculum.config import CurriculumConfig
from curriculum.registry import CURRICULA, make_curriculum

__all__ = ["CURRICULA", "Curriculum", "CurriculumConfig", "make_curriculum"]
