"""Atari 100k (Kaiser et al. 2020, arXiv:1903.00374): its games and human-normalised scores.

The protocol's settings are plain keys, in configs/env/atari.yaml: 100,000 agent steps of 4 frames each, no sticky actions, the
game's own actions, up to 30 idle frames at the start. A lost life does not end an episode, in training or in evaluation.
"""

from __future__ import annotations

# game -> average return of (a random player, a human), from Mnih et al. 2015 and Wang et al. 2016
REFERENCE: dict[str, tuple[float, float]] = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "DemonAttack": (152.1, 1971.0),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Hero": (1027.0, 30826.4),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MsPacman": (307.3, 6951.6),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "RoadRunner": (11.5, 7845.0),
    "Seaquest": (68.4, 42054.7),
    "UpNDown": (533.4, 11693.2),
}


def human_normalised(game: str, score: float) -> float:
    """0 for a random player's score, 1 for a human's. Raises KeyError for a game that is not among the 26."""
    random, human = REFERENCE[game]
    return (score - random) / (human - random)
