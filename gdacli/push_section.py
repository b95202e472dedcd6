"""The section `push` of `params.yaml`."""

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gdacli.sharing.licenses import LICENSES, OTHER

Text = Annotated[str, Field(min_length=1)]


def _known(license_id: str) -> str:
    if license_id in LICENSES:
        return license_id
    close = difflib.get_close_matches(license_id.lower(), LICENSES, 3) or ["apache-2.0", "cc-by-4.0", "openrail++"]
    raise ValueError(
        f"found {license_id!r}; allowed: the Hub's identifiers ({', '.join(close)}...: "
        f"https://huggingface.co/docs/hub/repositories-licenses), or {OTHER} with a name"
    )


class License(BaseModel):
    """A licence, and where it is stated: a card that names one without a source is not believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, AfterValidator(_known)] = Field(
        description=f"the Hub's identifier (cc-by-4.0, mit, openrail++...); {OTHER}: see name and link"
    )
    stated_in: Text = Field(description="where it says so: a URL, a file, a contract")
    name: Text | None = Field(None, description=f"of id: {OTHER}")
    link: Text | None = Field(None, description=f"to the text of id: {OTHER}")

    @model_validator(mode="after")
    def _named(self) -> "License":
        if self.id == OTHER and self.name is None:
            raise ValueError(f"name: missing; a licence with id: {OTHER} needs one, and best a link to its text")
        if self.id != OTHER and (self.name or self.link):
            raise ValueError(f"name and link go with id: {OTHER}; found id: {self.id}, which says both")
        return self


class Push(BaseModel):
    """`gdacli push`: what the cards of a shared dataset and model say that nobody else can know.

    No stage of the pipeline reads it. What a push needs and does not find here, it asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    license: License | None = Field(None, description="of the synthetic images; needed to share them")
    source_license: License | None = Field(None, description="of the originals; needed to share them")
    generator_license: License | None = Field(
        None, description="of a pretrained generator's outputs; needed to share them"
    )
    model_license: License | None = Field(None, description="of the trained model; needed to share it")
    source_datasets: list[Text] | None = Field(
        None, description="`original` or Hub ids of what the images were made of; null: data.source, if that is one"
    )
    pretty_name: Text | None = Field(None, description="of the dataset, for readers; null: one is made")
    limits: Text | None = Field(None, description="what readers must know besides what gdacli finds out itself")

    def of_cards(self) -> dict[str, Any]:
        """Return what the cards say of them."""
        return self.model_dump()
