"""Which stages make up the plan of a run, by what the run is for. Pure; the plan is frozen at submit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pipeline.run import Purpose, Step
from pipeline.stage import Json, Stage


def intake(
    stages: Sequence[Stage], *, servable: bool, extra: str | None = None, without: Collection[str] = ()
) -> list[Step]:
    """All that lets a version in. `extra` is what its format needs; `without` names stages that this installation or the uploader does without."""
    return [
        stage.step(extra)
        for stage in stages
        if Purpose.INTAKE in stage.purposes and (servable or not stage.servable_only) and stage.name not in without
    ]


def targets(declared: Mapping[str, Json]) -> list[str]:
    """The variants for devices that the uploader asked for: `targets` in the config, one name or a list of them."""
    config = declared.get("config")
    said = config.get("targets") if isinstance(config, dict) else None
    listed = said if isinstance(said, list) else [said]
    return [each for each in listed if isinstance(each, str)]


def unwanted(
    stages: Sequence[Stage],
    *,
    policy: Literal["auto", "always", "never"],
    asked: Collection[str],
    served: Collection[str],
) -> list[str]:
    """The optional stages that an intake does without.

    By the policy `auto` those are the ones that make nothing the uploader `asked` for and whose queue nobody serves at the moment.
    """
    optional = [stage for stage in stages if stage.optional]
    match policy:
        case "always":
            return []
        case "never":
            return [stage.name for stage in optional]
        case "auto":
            return [
                stage.name for stage in optional if stage.queue not in served and set(asked).isdisjoint(stage.offers)
            ]


def addition(stages: Sequence[Stage], variants: Collection[str], *, queues: Mapping[str, str]) -> list[Step]:
    """What makes these variants, and what follows that. Nothing of it is optional: it was asked for.

    `queues` says where the steps of the intake waited, for a worker that can open the file.
    """
    chosen: dict[str, Stage] = {}
    for stage in stages:
        follows = not stage.offers and Purpose.INTAKE in stage.purposes and not chosen.keys().isdisjoint(stage.after)
        if follows or not set(variants).isdisjoint(stage.offers):
            chosen[stage.name] = stage
    return [
        replace(stage.step(), optional=False, queue=queues.get(stage.name, stage.queue)) for stage in chosen.values()
    ]


def rebuild(stages: Sequence[Stage], *, queues: Mapping[str, str]) -> list[Step]:
    """What makes a version's artifacts again, on the `queues` of its intake, and compares them."""
    return [
        replace(stage.step(), queue=queues.get(stage.name, stage.queue))
        for stage in stages
        if Purpose.REBUILD in stage.purposes
    ]


def offered(stages: Sequence[Stage]) -> list[str]:
    """The variants that may be asked for by name."""
    return [name for stage in stages for name in stage.offers]
