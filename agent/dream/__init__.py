"""`job=dream`: the model's futures beside the real one, as pictures and films, and imagined episodes as a data set."""

from agent.dream.rollout import Dream, dream
from agent.playing import play_episode

__all__ = ["Dream", "dream", "play_episode"]
