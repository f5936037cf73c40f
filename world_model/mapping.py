"""A map of what the views of a grid have shown: how a view moves over its world, and what was last seen at each place.

A view that is cut out round a moving agent shows one world, shifted and turned. How a step moves it is found by laying the next
view over the present one (scan matching, Lu and Milios 1997), and foretold from the action and, among what is likely then, the
history, so that imagination moves alike. The map then tells the prior what was seen at every place that the next view shows,
however long ago. Where a view does not move, as on a board, its map is the board.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.spaces.specs import ActionSpec
from world_model.actions import make_action_embedding
from world_model.latents import LatentBlock, module_name
from world_model.lattice import ROW, SIDE, cells_of, motions, place_numbers, quarter_turns, turned
from world_model.symbols import UNKNOWN

LARGEST = SIDE // 2  # cells a side of a view that is mapped
STEPS, CELLS = 8, 64  # of a sequence, and of a view, that an update learns motions from
WEIGHT = 0.1  # of a cell's match: cells beside each other mostly tell the same, so many count as few
TIE = 1e-3  # by which motions may differ and count as equally likely: those that look alike must not be told apart by rounding
RIVALS = 5.0  # nats that a motion may be less likely than the likeliest, by the action alone, for the history to choose it
FAILING = 3.0  # nats that it is less likely, at most, for an action to leave the view in place
RULED_OUT = 30.0  # nats
SETTLED = 0.95  # probability from which on an action is known to do something
INERTIA = 3.0  # nats by which views have to speak for a leap out of all sight, against what an action is known to do
STUBBORN = 0.3  # nats that the history has to find in a view, for each by which it departs from what the action alone tells
HASTE = 30.0  # by which what actions do is learned faster than the rest
DOUBT = 0.3  # share of cells taken to show anything at all, wherever they were


@dataclass
class MapState:
    """Maps, of any batch shape (...), before a view is taken in.

    Attributes:
        seen: (..., SIDE * SIDE) int32: `last + 65536 * other` of each place, the last code seen there and the last other one,
            each plus one; 0 for none.
        pose: (..., 3) int64: quarter turns from the view to the map, and the place (row, column) of the view's first cell.
        places: (..., cells) int64, where the view's cells are by that pose, if it has been worked out.
    """

    seen: Tensor
    pose: Tensor
    places: Tensor | None = None

    @classmethod
    def zeros(cls, batch: int, device: torch.device) -> MapState:
        seen = torch.zeros(batch, SIDE * SIDE, dtype=torch.int32, device=device)
        return cls(seen, torch.zeros(batch, 3, dtype=torch.int64, device=device))

    def apply(self, change: Callable[[Tensor], Tensor]) -> MapState:
        return MapState(change(self.seen), change(self.pose))

    def restart(self, first: Tensor) -> MapState:
        """Forget all where `first` (B,) is True."""
        return self.apply(lambda x: x * ~first.unsqueeze(-1))


Maps = dict[str, MapState]  # by the key of a grid
ByAction = tuple[Tensor, Tensor]  # what actions tell of motions, see `GridMap.by_action`
Recalled = Mapping[str, Tensor]  # by the key of a grid: (..., cells, 2), what its map holds for each cell of the next view


class GridMap(nn.Module):
    """The map of one grid: codes (B, cells) go in, and what was seen where the next view will be comes out."""

    turn: Tensor
    where: Tensor
    leap: Tensor
    moves: Tensor
    wrap: Tensor
    turned_places: Tensor
    pivot: Tensor

    def __init__(self, block: LatentBlock, width: int, action: ActionSpec) -> None:
        super().__init__()
        rows, columns = block.layout
        turn, shift, where = motions(rows, columns)
        self.classes, self.cells = block.max_classes, rows * columns
        # Where MiniGrid's agent stands, about which its view turns; of others, any place.
        self.register_buffer("pivot", torch.tensor([rows // 2, columns - 1]), persistent=False)
        self.register_buffer("turn", turn, persistent=False)
        self.register_buffer("where", where, persistent=False)
        self.register_buffer("leap", (where == rows * columns).float().mean(-1), persistent=False)  # share taken out of sight
        moves = torch.cat([turn.expand(4, -1).unsqueeze(-1), quarter_turns(shift)], -1).flatten(0, 1)  # (4 M, 3), of a pose
        self.register_buffer("moves", moves, persistent=False)
        self.register_buffer("wrap", torch.tensor([3, SIDE - 1, SIDE - 1]), persistent=False)  # turns and places go round
        self.register_buffer("turned_places", place_numbers(quarter_turns(cells_of(rows, columns))), persistent=False)
        self.action = action
        self.gate = make_action_embedding(action, len(turn))
        self.head = nn.Linear(width, len(turn))
        last = [layer for layer in self.gate.modules() if isinstance(layer, nn.Linear | nn.Embedding)][-1]
        for layer in (last, self.head):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def motion_logits(self, h: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (..., M) of how a step moves the view: by its action (..., *action shape) alone, and chosen by the history
        h (..., D), as of a wall ahead, among the motions that the action makes likely.

        One who could name a motion for every view would explain what appears behind an opening door by a leap.
        """
        with torch.autocast(h.device.type, enabled=False):  # so that all passes move alike
            told = HASTE * self.gate(action).float()
            known, likely = self._usual(told)
            return told, torch.where(likely, known + self.head(h.float()), known - RULED_OUT)

    @torch.no_grad()
    def by_action(self) -> ByAction | None:
        """What discrete actions tell of motions by themselves, (actions, M) each: the logits of `motion_logits` of a history that
        says nothing, and 1 where it has a say. Nothing where actions are not discrete.
        """
        if self.action.kind != "discrete":
            return None
        with torch.autocast(self.leap.device.type, enabled=False):
            known, likely = self._usual(HASTE * self.gate(torch.arange(self.action.size, device=self.leap.device)).float())
            return torch.where(likely, known, known - RULED_OUT), likely.float()

    def _usual(self, told: Tensor) -> tuple[Tensor, Tensor]:
        """What the history chooses among: what the action alone tells (..., M), and staying in place, as any action may fail; and
        which of these it may choose."""
        told = told.detach()
        stay = torch.maximum(told[..., :1], told.amax(-1, keepdim=True) - FAILING)
        known = torch.cat([stay, told[..., 1:]], -1)
        return known, known >= known.amax(-1, keepdim=True) - RIVALS

    @torch.no_grad()
    def motion(self, h: Tensor, action: Tensor, by_action: ByAction | None = None) -> Tensor:
        """(...,), the likeliest motion; of those as likely the one that leaves most in sight. `by_action`: what it answered."""
        by_action = self.by_action() if by_action is None else by_action
        if by_action is None:
            _, logits = self.motion_logits(h, action)
        else:  # the same, worked out for each action and not for each step
            known, likely = (F.embedding(action, rows) for rows in by_action)
            with torch.autocast(h.device.type, enabled=False):
                logits = torch.addcmul(known, likely, self.head(h.float()))
        return (logits > logits.amax(-1, keepdim=True) - TIE).int().argmax(-1)

    @torch.no_grad()
    def step(
        self, state: MapState, codes: Tensor, h: Tensor, action: Tensor, in_place: bool = False, by_action: ByAction | None = None
    ) -> tuple[MapState, Tensor]:
        """Take in the present view and move as action and history foretell.

        Args:
            state: of B maps. codes: (B, cells). h: (B, D), which has seen this view and the action. action: (B, *action shape).
            in_place: write into the map given, which is not looked at again. by_action: what it answered, if it was asked.

        Returns:
            The map before the next view, and what it holds for its cells, (B, cells, 2): the last code seen there and the last
            other one, each plus one; 0 for none.
        """
        return self._step(state, codes, self.motion(h, action, by_action), in_place)

    @torch.no_grad()
    def scan(
        self, codes: Tensor, h: Tensor, action: Tensor, first: Tensor, state: MapState | None = None
    ) -> tuple[Tensor, MapState]:
        """`step` along sequences, from empty maps or from `state`.

        Args:
            codes: (B, T, cells). h: (B, T, D). action: (B, T, *action shape). first: (B, T) bool.

        Returns:
            What the maps hold for the next views, (B, T, cells, 2), and the maps before each step, (B, T, ...).
        """
        motion = self.motion(h, action)
        state = MapState.zeros(len(codes), codes.device) if state is None else state
        found, states = [], []
        for t in range(codes.shape[1]):
            states.append(state := state.restart(first[:, t]))
            state, recalled = self._step(state, codes[:, t], motion[:, t])
            found.append(recalled)
        before = MapState(torch.stack([s.seen for s in states], 1), torch.stack([s.pose for s in states], 1))
        return torch.stack(found, 1), before

    def _step(self, state: MapState, codes: Tensor, motion: Tensor, in_place: bool = False) -> tuple[MapState, Tensor]:
        turn, at = state.pose[:, 0], state.pose[:, 1:]
        places = self._places(turn, at) if state.places is None else state.places
        old, new = state.seen.gather(1, places), codes.int() + 1
        last = old & 0xFFFF
        same = (last == new) | (codes == UNKNOWN)  # what is not known tells nothing
        write = state.seen.scatter_ if in_place else state.seen.scatter
        seen = write(1, places, torch.where(same, old, (last << 16) | new))
        pose = (state.pose + self.moves.index_select(0, turn * len(self.turn) + motion)) & self.wrap
        places = self._places(pose[:, 0], pose[:, 1:])
        found = seen.gather(1, places)
        recalled = torch.stack([found & 0xFFFF, found >> 16], -1).long()
        return MapState(seen, pose, places), recalled

    def pose(self, state: MapState) -> Tensor:
        """Where the view is on the map, (..., 3) int64: quarter turns, and the place (row, column) of its pivot."""
        turn = state.pose[..., :1]
        return torch.cat([turn, (turned(self.pivot, turn.squeeze(-1)) + state.pose[..., 1:]) & (SIDE - 1)], -1)

    def _places(self, turn: Tensor, at: Tensor) -> Tensor:
        """Where on the map the cells of a view are, (B, cells)."""
        x = self.turned_places.index_select(0, turn) + place_numbers(at).unsqueeze(1)
        return ((x >> ROW) & (SIDE - 1)) * SIDE + (x & (SIDE - 1))

    def loss(self, h: Tensor, action: Tensor, now: Tensor, after: Tensor, valid: Tensor) -> Tensor:
        """Nats that the motions of some of the steps cost, (B, T): zero of the others, for which they stand by their weight.

        A mixture over motions: each says of the next view's cells that they show what is seen where they come from, and, where
        that was out of sight or fails, what is frequent. Up to a constant of each step, so that a sure motion costs nothing.

        What the action alone tells is learned by itself, as if there were no history, and is half of the loss. Once an action is
        known to do something it takes more than a hint to make that a leap: an agent may stand for long where a view misleads.
        The other half is a bound on the evidence (Kingma and Welling 2014): the history is no surer of a motion than views are.

        Args:
            h: (B, T, D). action: (B, T, *action shape).
            now, after: (B, T, cells), views before and after each step. valid: (B, T) bool.
        """
        steps = slice(None, None, -(-h.shape[1] // STEPS))
        cells = slice(None, None, -(-self.cells // CELLS))
        with torch.no_grad():
            there = valid.unsqueeze(-1).expand_as(after)
            count = torch.ones(len(h), self.classes, device=h.device)  # a sequence's own, so that no other one matters to it
            count = count.scatter_add(1, after.flatten(1), there.flatten(1).float())
            chance = (count / count.sum(-1, keepdim=True)).gather(1, after.flatten(1)).view_as(after)
            after, chance, where = after[:, steps, cells], chance[:, steps, cells], self.where[:, cells]
            hit, miss = ((1 - DOUBT) / chance + DOUBT).log(), math.log(DOUBT)
            source = F.pad(now[:, steps], (0, 1), value=-1)[..., where]  # (B, steps, M, cells)
            gain = torch.where(source == after.unsqueeze(-2), hit.unsqueeze(-2), miss) * ((source >= 0) & (source != UNKNOWN))
            match = WEIGHT * gain.sum(-1)  # (B, steps, M)
            match -= match.amax(-1, keepdim=True)
        logits = self.motion_logits(h[:, steps], action[:, steps])
        told, chosen = (x.log_softmax(-1) for x in logits)
        known, best = told.detach().exp().max(-1, keepdim=True)
        leap = (self.leap - self.leap[best]).clamp(min=0)  # (B, steps, M)
        settled = match - INERTIA * leap * (known > SETTLED)
        settled = settled - settled.amax(-1, keepdim=True)
        usual = self._usual(logits[0])[0].log_softmax(-1)
        by_history = (chosen.exp() * (STUBBORN * (chosen - usual) - match)).sum(-1)
        nats = 0.5 * (by_history - (told + settled).logsumexp(-1))
        found = torch.zeros(valid.shape, device=h.device)
        found[:, steps] = nats * valid[:, steps] * (h.shape[1] / nats.shape[1])
        return found


class GridMaps(nn.Module):
    """The maps of all grids that have one, by key."""

    def __init__(self, blocks: Iterable[LatentBlock], width: int, action: ActionSpec) -> None:
        super().__init__()
        self.names = {block.key: module_name(block.key) for block in blocks}
        self.of = nn.ModuleDict({module_name(block.key): GridMap(block, width, action) for block in blocks})

    def __getitem__(self, key: str) -> GridMap:
        found = self.of[self.names[key]]
        assert isinstance(found, GridMap)
        return found

    def zeros(self, batch: int, device: torch.device) -> Maps:
        return {key: MapState.zeros(batch, device) for key in self.names}

    def poses(self, maps: Maps) -> Tensor:
        """`GridMap.pose` of each, (..., 3 * grids), in their order."""
        return torch.cat([self[key].pose(maps[key]) for key in self.names], -1)

    def by_action(self) -> dict[str, ByAction | None]:
        """`GridMap.by_action` of each."""
        return {key: self[key].by_action() for key in self.names}

    def step(
        self,
        maps: Maps,
        codes: Mapping[str, Tensor],
        h: Tensor,
        action: Tensor,
        in_place: bool = False,
        by_action: Mapping[str, ByAction | None] | None = None,
    ) -> tuple[Maps, Recalled]:
        """`GridMap.step` of each."""
        known = by_action or {}
        found = {key: self[key].step(maps[key], codes[key], h, action, in_place, known.get(key)) for key in self.names}
        return {key: state for key, (state, _) in found.items()}, {key: recalled for key, (_, recalled) in found.items()}

    def scan(
        self, codes: Mapping[str, Tensor], h: Tensor, action: Tensor, first: Tensor, maps: Maps | None = None
    ) -> tuple[Recalled, Maps]:
        """`GridMap.scan` of each."""
        found = {key: self[key].scan(codes[key], h, action, first, maps[key] if maps else None) for key in self.names}
        return {key: recalled for key, (recalled, _) in found.items()}, {key: maps for key, (_, maps) in found.items()}


def discovered(recalled: Recalled, codes: Mapping[str, Tensor]) -> Tensor:
    """How much of a view is news: the share of its cells that show what their places on the map have not shown lately.

    A place holds the two things last seen there, so that going to and fro between them, as a door that is opened and closed, is
    no news.

    Args:
        recalled: of every grid that has a map, (..., cells, 2). codes: of its view, (..., cells).

    Returns:
        (...,), the mean over grids.
    """
    news = [
        ((codes[key].unsqueeze(-1) + 1 != held).all(-1) & (codes[key] != UNKNOWN)).float().mean(-1)
        for key, held in recalled.items()
    ]
    return torch.stack(news).mean(0)


def is_mapped(block: LatentBlock) -> bool:
    """Whether a block can have a map: symbols on a lattice that change, and neither cells nor codes too many for one."""
    if block.kind != "grid" or block.learned or block.static:
        return False
    return max(block.layout) <= LARGEST and block.max_classes < 1 << 15
