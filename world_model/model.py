"""The world model: one module, whose `forward` answers named losses and the states that imagination starts from."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.spaces.specs import EnvSpec, ModalitySpec, presence_key
from world_model.actions import make_action_embedding
from world_model.augmentation import drop_cells, drop_modalities
from world_model.batch import ModelOutput, Sequences
from world_model.compiling import compile_parts
from world_model.config import ModelConfig
from world_model.dynamics import Dynamics, RecordingCache, RollingState, rolling_step, segment_mask
from world_model.embedding import Lasting, LatentEmbedding, TextRows
from world_model.ensemble import Ensemble
from world_model.gradients import part_of, parts
from world_model.heads import TwoHotHead, make_prior
from world_model.latents import LatentBlock, LatentSpec, module_name
from world_model.mapping import GridMaps, Maps, Recalled, discovered, is_mapped
from world_model.math import code_error, sample_codes
from world_model.modalities import check_learned, make_modality
from world_model.modalities.base import Modality
from world_model.networks import mlp
from world_model.pretrained.build import make_readers
from world_model.pretrained.text import TextFeatures
from world_model.symbols import UNKNOWN

NOTHING: Recalled = {}  # of a model without maps


def _block(leaf: ModalitySpec, modality: Modality, config: ModelConfig) -> LatentBlock:
    presence = presence_key(leaf.key) if leaf.optional else ""
    return replace(modality.block, presence=presence, mapped=config.maps and is_mapped(modality.block))


class WorldModel(nn.Module):
    """Encoders, step embedding, decoder and heads. Knows observation specs, never an environment."""

    def __init__(self, spec: EnvSpec, config: ModelConfig) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        check_learned(spec.observations, config)
        found = [(leaf, make_modality(leaf, config)) for leaf in spec.observations]
        readers = make_readers(spec.observations, config)
        self.modalities = nn.ModuleDict({module_name(modality.block.key): modality for _, modality in found + readers})
        self.latents = LatentSpec(tuple(_block(leaf, modality, config) for leaf, modality in found + readers))
        self.read = {leaf.key: reader.block.key for leaf, reader in readers}
        self.texts = {leaf.key: reader for leaf, reader in readers if isinstance(reader, TextFeatures)}
        self.embed_latent = LatentEmbedding(
            self.latents,
            config.symbol_width,
            config.hidden,
            config.text_heads,
            config.attention_heads,
            {key: reader.encoder.width for key, reader in self.texts.items()},
        )
        self.embed_action = make_action_embedding(spec.action, config.hidden)
        self.embed_step = nn.Sequential(nn.RMSNorm(config.hidden), nn.SiLU(), mlp([config.hidden, config.hidden, config.width]))
        self.dynamics = Dynamics(config)
        self.predicted = [block for block in self.latents.blocks if not block.static]
        self.priors = nn.ModuleDict({module_name(block.key): make_prior(block, config.width, config) for block in self.predicted})
        self.maps = GridMaps([block for block in self.predicted if block.mapped], config.width, spec.action)
        self.poses = False  # whether policies are told where they are on the maps (`view`), as `Hierarchy.poses` asks
        self.reward_head = TwoHotHead(config.width, config)
        self.continue_head = mlp([config.width, config.hidden, 1], zero_last=True)
        self.ensemble = Ensemble(config.ensemble, config.width, config.hidden, config.hidden) if config.ensemble else None
        if config.compile is not None:  # not the decoder's attention, whose cache grows with every step
            layers = [layer.mlp for layer in self.dynamics.decoder.layers]
            heads = [self.reward_head.net, self.continue_head, *self.priors.values()]
            compile_parts([self.embed_latent, self.embed_step, *layers, *heads], config.compile)

    def autocast(self) -> AbstractContextManager[Any]:
        """What every pass runs in: bf16 where `config.precision` asks for it."""
        device = next(self.parameters()).device
        return torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    # -- observations in -------------------------------------------------------------------------------------------------

    def modality(self, key: str) -> Modality:
        module = self.modalities[module_name(key)]
        assert isinstance(module, Modality)
        return module

    def tokenize(self, obs: dict[str, NDArray[Any]], grow: bool | Collection[str] = False) -> dict[str, Tensor]:
        """Adapted observations {key: (..., *shape)} -> tensors as in `Sequences.obs`: on the CPU, but for the codes of images.

        `grow` lets tables, codebooks and statistics take in what is new: all of them, or those of the given keys.
        """
        tokens = {}
        for leaf in self.spec.observations:
            raw = obs[leaf.key]
            asked = grow if isinstance(grow, bool) else leaf.key in grow
            for key in (leaf.key, self.read[leaf.key]) if leaf.key in self.read else (leaf.key,):
                modality, learn = self.modality(key), asked
                if learn and leaf.optional:  # what stands for "absent" is not learned from
                    there = obs[presence_key(leaf.key)][..., 0] > 0
                    if there.any():
                        modality.tokenize(raw[there], grow=True)
                    learn = False
                tokens[key] = modality.tokenize(raw, learn)
        return tokens

    def pop_metrics(self) -> dict[str, float]:
        """`{NAME/KEY: figure}` of what every modality has taken in since the last call."""
        found = {leaf.key: self.modality(leaf.key).pop_metrics() for leaf in self.spec.observations}
        return {f"{name}/{key}": value for key, values in found.items() for name, value in values.items()}

    def posterior(self, obs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes z (..., G), and the losses (...,) that train the encoders of learned blocks."""
        codes, losses = [], {}
        for block in self.latents.blocks:
            code = obs[block.key]
            if block.learned:
                code, loss = self.modality(block.key).encode(code)
                if block.presence:
                    loss = loss * obs[block.presence][..., 0]
                losses[f"reconstruction/{block.key}"] = loss
            codes.append(code)
        return self.latents.hide(torch.cat(codes, -1)), losses

    def rolling_state(self, batch: int, device: torch.device) -> RollingState:
        """What is remembered of `batch` episodes that have not begun."""
        nothing = torch.zeros(batch, self.latents.groups, dtype=torch.int64, device=device)
        state = RollingState.zeros(self.dynamics, batch, device)
        return replace(state, maps=self.maps.zeros(batch, device), shown=self.latents.shown(nothing, {}))

    def take_in(self, z: Tensor, action: Tensor, state: RollingState) -> tuple[Tensor, RollingState]:
        """One step of B episodes, z (B, G) and action (B, *action shape): h (B, D), and the state with it taken in."""
        h, state = rolling_step(self.dynamics, self.embed(z, action), state)
        maps, _ = self.maps.step(state.maps, self.latents.split(z), h, action)
        return h, replace(state, maps=maps, shown=self.latents.shown(z, state.shown))

    def embed(self, z: Tensor, action: Tensor, lasting: Lasting | None = None) -> Tensor:
        """z (..., G), action (..., *action shape) -> tokens (..., D). `lasting` is what `lasting` answered of these episodes."""
        return self._tokens(z, action, self._features(z), lasting)

    def _tokens(self, z: Tensor, action: Tensor, features: TextRows, lasting: Lasting | None = None) -> Tensor:
        return self.embed_step(self.embed_latent(z, features, lasting) + self.embed_action(action))

    def lasting(self, z: Tensor) -> Lasting:
        """What of the embedding of z (..., G) stays as it is while a rollout goes on from there."""
        return self.embed_latent.lasting(z, self._features(z))

    def _features(self, z: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What pretrained encoders make of the texts of states z (..., G), see `TextRows`."""
        return {key: reader.rows(z[..., self.latents.slices[self.read[key]]]) for key, reader in self.texts.items()}

    @property
    def view_width(self) -> int:
        """Width V of `view`, less the poses."""
        return self.config.width + self.embed_latent.similarity_width

    @property
    def seen_width(self) -> int:
        """The same, with the poses where there are any."""
        return self.view_width + (3 * len(self.maps.names) if self.poses else 0)

    def view(self, z: Tensor, h: Tensor, maps: Maps) -> Tensor:
        """What a policy sees beside z (..., G): the history h (..., D) and what texts point at in z, (..., V). With `poses` these
        are followed by where the view is on the maps, which are those before it (`GridMaps.poses`).

        What a text means is learned once, from the rewards and ends that it foretells. A policy that had to find it out by
        itself, from advantages, took far longer.
        """
        parts = [h]
        if self.embed_latent.guides:
            parts.append(self.embed_latent.similarities(z, self._features(z)))
        if self.poses:
            parts.append(self.maps.poses(maps).to(h.dtype))
        return torch.cat(parts, -1) if len(parts) > 1 else h

    # -- predictions out -------------------------------------------------------------------------------------------------

    def prior_logits(self, h: Tensor, z: Tensor, recalled: Recalled = NOTHING) -> dict[str, Tensor]:
        """h (..., D) after (z, a) -> {key: logits (..., groups, C)} of the next codes, static blocks left out.

        `recalled` is what the maps hold for the next views, of every grid that has one.
        """
        missing = [key for key in self.maps.names if key not in recalled]
        if missing:
            raise ValueError(f"the prior of '{missing[0]}' reads its map: give what it holds for the next view (recalled)")
        parts = {**self.latents.split(z), **recalled}
        return {
            block.key: self.priors[module_name(block.key)](h, parts[block.key], self.modality(block.key).classes_in_use)
            for block in self.predicted
        }

    def surprise(self, h: Tensor, z: Tensor, after: Tensor, recalled: Recalled = NOTHING) -> dict[str, Tensor]:
        """{key: (...,)}, negative log-likelihood in nats of the next codes `after` (..., G), which follow h (..., D) and z."""
        codes = self.latents.split(after)
        return {key: code_error(x, codes[key]) for key, x in self.prior_logits(h, z, recalled).items()}

    def sample_next(self, h: Tensor, z: Tensor, noise: Tensor | None, recalled: Recalled = NOTHING) -> Tensor:
        """Next codes (..., G), drawn from the prior by `noise` (..., G) in [0, 1), or the likeliest; static ones are carried."""
        logits, parts = self.prior_logits(h, z, recalled), self.latents.split(z)
        if noise is None:
            chosen = {key: values.argmax(-1) for key, values in logits.items()}
        else:
            noises = self.latents.split(noise)
            chosen = {key: sample_codes(values.float(), noises[key]) for key, values in logits.items()}
        return self.latents.hide(torch.cat([chosen.get(key, part) for key, part in parts.items()], -1))

    def reward(self, h: Tensor) -> Tensor:
        """Expected reward (...,) on arriving at the next step."""
        return self.reward_head(h)

    def cont(self, h: Tensor) -> Tensor:
        """Probability (...,) that the next step does not terminate the episode."""
        return self.continue_head(h).squeeze(-1).float().sigmoid()

    def _hidden(self, z: Tensor) -> Tensor:
        """Codes (B, T, G) of a training pass as the dynamics are to see them: what is hidden is still to be foretold."""
        if self.training and self.config.modality_dropout and self.latents.presence:
            z = drop_modalities(z, self.latents, self.config.modality_dropout)
        if self.training and self.config.augment.cell_dropout:
            z = drop_cells(z, self.latents, self.config.augment.cell_dropout)
        return z

    def disagreement(self, h: Tensor) -> Tensor:
        """How far the ensemble's heads are apart about the step that follows h (..., D): (...,), zeros without an ensemble."""
        return h.new_zeros(h.shape[:-1]) if self.ensemble is None else self.ensemble.disagreement(self.ensemble(h))

    def discovered(self, recalled: Recalled, z: Tensor) -> Tensor:
        """Share (...,) of the views of z (..., G) that is news to their maps; zeros without maps."""
        return discovered(recalled, self.latents.split(z)) if recalled else torch.zeros(z.shape[:-1], device=z.device)

    # -- training --------------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by part (see `world_model.gradients.part_of`)."""
        keys = {module_name(block.key): block.key for block in self.latents.blocks}
        parameters = dict(self.named_parameters())
        return parts(((name, part_of(name, keys)) for name in parameters), parameters)

    def _history(
        self, z: Tensor, action: Tensor, first: Tensor, features: TextRows, maps: Maps | None = None
    ) -> tuple[Tensor, RecordingCache]:
        """One parallel pass over sequences, from empty maps or from `maps`: h (B, T, D), keys, values and maps."""
        context = RecordingCache()
        steps = torch.arange(z.shape[1], device=z.device).unsqueeze(0)
        h = self.dynamics(self._tokens(z, action, features), segment_mask(first, self.config.window), steps, context)
        h = h.float()
        context.recalled, context.maps = self.maps.scan(self.latents.split(z), h, action, first, maps)
        return h, context

    @torch.no_grad()
    def prefill(self, obs: dict[str, Tensor], action: Tensor, first: Tensor) -> tuple[Tensor, Tensor, RecordingCache]:
        """Take in sequences without learning from them: what imagination needs to start anywhere in them.

        Args:
            obs: {key: (B, T, ...)} as in `Sequences`. action: (B, T, *action shape). first: (B, T) bool, episode starts.

        Returns:
            z (B, T, G), h (B, T, D), keys, values and maps.
        """
        with self.autocast():
            z, _ = self.posterior(obs)
            h, context = self._history(z, action, first, self._features(z))
            context.shown = self.latents.shown_along(z, first)
            return z, h, context

    def _maps_after(self, before: Sequences) -> Maps:
        """Maps before the last views of sequences: burn-in (Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed
        Reinforcement Learning") of all that the model remembers for longer than its attention reaches."""
        _, _, context = self.prefill(before.obs, before.action, before.first)
        return {key: state.apply(lambda x: x[:, -1].clone()) for key, state in context.maps.items()}

    def forward(self, batch: Sequences) -> ModelOutput:
        # First of all, as encoders and autocast keep what they made of weights: it is to be made with a gradient after this.
        maps = None if batch.before is None else self._maps_after(batch.before)
        with self.autocast():
            return self._forward(batch, maps)

    def _forward(self, batch: Sequences, maps: Maps | None) -> ModelOutput:
        z, encoding = self.posterior(batch.obs)
        seen, features = self._hidden(z), self._features(z)
        h, context = self._history(seen, batch.action, batch.first, features, maps)
        context.shown = self.latents.shown_along(z, batch.first)
        recalled = context.recalled
        if seen is not z:  # what is hidden is hidden from what foretells; imagination starts from it, and it is no news next time
            context.recalled, context.maps = self.maps.scan(self.latents.split(z), h, batch.action, batch.first, maps)

        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        valid = batch.valid  # (B, T-1)
        count = (valid.sum() if batch.steps is None else batch.steps).clamp(min=1)

        def mean(x: Tensor) -> Tensor:
            return (x * valid).sum() / count

        there = self.latents.present(z)
        kept = self.latents.split(seen[:, :-1] == z[:, :-1])
        counted = {key: x[:, 1:] for key, x in there.items()}
        # Of steps at which something was only hidden from the inputs it is not to be learned that it comes back next.
        counted |= {block.presence: kept[block.presence][..., 0] for block in self.latents.blocks if block.presence}
        now, after = self.latents.split(z[:, :-1]), self.latents.split(z[:, 1:])
        past = h[:, :-1], seen[:, :-1], {key: x[:, :-1] for key, x in recalled.items()}
        for key, logits in self.prior_logits(*past).items():
            error = code_error(logits, after[key])
            losses[f"prior/{key}"] = mean(error * counted[key] if key in counted else error)
            with torch.no_grad():
                changed = (after[key] != now[key]) & valid.unsqueeze(-1)
                if key in there:
                    changed &= (there[key][:, :-1] & there[key][:, 1:]).unsqueeze(-1)
                right = logits.argmax(-1) == after[key]
                metrics[f"changed_accuracy/{key}"] = (right & changed).sum() / changed.sum().clamp(min=1)
        for key in self.maps.names:
            steps = valid & there[key][:, :-1] & there[key][:, 1:] if key in there else valid
            losses[f"motion/{key}"] = mean(self.maps[key].loss(past[0], batch.action[:, :-1], now[key], after[key], steps))
        for key, codes in self.latents.split(z).items():
            if self.modality(key).has_unknown:
                unknown = (codes == UNKNOWN).float()
                metrics[f"unknown/{key}"] = (
                    (unknown.mean(-1) * there[key]).sum() / there[key].sum().clamp(min=1) if key in there else unknown.mean()
                )
        losses |= {name: loss.mean() for name, loss in encoding.items()}
        losses["reward"] = mean(self.reward_head.loss(h[:, :-1], batch.reward[:, 1:]))
        alive = (~batch.terminated[:, 1:]).float()
        losses["cont"] = mean(
            F.binary_cross_entropy_with_logits(self.continue_head(h[:, :-1]).squeeze(-1).float(), alive, reduction="none")
        )
        if self.ensemble is not None:
            foretold = self.ensemble(h[:, :-1].detach())
            with torch.no_grad():
                target = self.embed_latent(z[:, 1:], {key: (rows, index[:, 1:]) for key, (rows, index) in features.items()})
            losses["ensemble"] = mean(self.ensemble.loss(foretold, target))
            with torch.no_grad():
                metrics["disagreement"] = mean(self.ensemble.disagreement(foretold))
        scales = self.config.losses
        loss = sum(getattr(scales, name.split("/")[0]) * value for name, value in losses.items())
        assert isinstance(loss, Tensor)
        return ModelOutput({k: v.detach() for k, v in losses.items()}, loss, metrics, z.detach(), h.detach(), context)
