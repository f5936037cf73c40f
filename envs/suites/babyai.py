"""BabyAI levels as task spaces (Chevalier-Boisvert et al. 2019, arXiv:1810.08272): every mission is an instruction."""

from __future__ import annotations

from envs.tasks import Task


def goto() -> tuple[Task, ...]:
    """Go to what the mission names: the one ball, one of two things, of eight, and through a maze of rooms."""
    return _tasks("GoToRedBallGrey", "GoToRedBall", "GoToLocalS5N2", "GoToLocalS6N3", "GoToLocal", "GoToObjMazeS4", "GoTo")


def pickup() -> tuple[Task, ...]:
    """Fetch what the mission names: in one room, among things that distract, then behind doors."""
    return _tasks("PickupLoc", "PickupDist", "UnlockPickup", "Pickup")


def opening() -> tuple[Task, ...]:
    """Open the door that the mission names, then several in the order that it names."""
    return _tasks("OpenRedDoor", "OpenDoorColor", "OpenTwoDoors", "Open")


def _tasks(*levels: str) -> tuple[Task, ...]:
    return tuple(Task(level, {"env": f"BabyAI-{level}-v0", "kwargs": {}}) for level in levels)
