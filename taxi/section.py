"""What every section of ``params.yaml`` is: a name that is not known is an error, and nobody changes a value once it is read."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of ``params.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
