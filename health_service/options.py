"""Types that the options of several checks share."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, WithJsonSchema

from vmshepherd_kit.settings import Duration

Port = Annotated[int, Field(ge=1, le=65535)]
Timeout = Annotated[
    Duration,
    Field(gt=timedelta(0), le=timedelta(seconds=60)),
    WithJsonSchema(
        {"type": ["number", "string"], "description": "Seconds, or a text like 500ms; at most 60s."}
    ),
]
