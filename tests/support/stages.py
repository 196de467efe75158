"""The stages of a pipeline by name, wherever its parts keep them."""

from dataclasses import fields, replace
from typing import Any

from headgate.workers.pipeline.pipeline import Pipeline


def stage_of(pipeline: Pipeline, name: str) -> Any:
    """Return the stage of this name; raise AttributeError if the pipeline has none."""
    parts = (pipeline, pipeline.ask, pipeline.ask.steps)
    holder = next((part for part in parts if name in _names(part)), pipeline)
    return getattr(holder, name)


def with_stages(pipeline: Pipeline, **stages: Any) -> Pipeline:
    """Return the pipeline with these stages in each part that uses them."""
    ask, steps = pipeline.ask, pipeline.ask.steps
    steps = replace(steps, **_of(steps, stages))
    ask = replace(ask, steps=steps, **_of(ask, stages))
    return replace(pipeline, ask=ask, **_of(pipeline, stages))


def _of(part: Any, stages: dict[str, Any]) -> dict[str, Any]:
    return {name: stage for name, stage in stages.items() if name in _names(part)}


def _names(part: Any) -> set[str]:
    return {field.name for field in fields(part)}
