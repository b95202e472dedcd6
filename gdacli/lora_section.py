"""The section `fit.lora` of `params.yaml`."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gdacli.prompts import checked_templates

Templates = Annotated[str | Annotated[list[str], Field(min_length=1)], AfterValidator(checked_templates)]
Positive = Annotated[int, Field(ge=1)]


class Lora(BaseModel):
    """`fit.lora`: fine-tune a text_to_image model on the train split, by low-rank layers beside its attention.

    `fit.dtype`, `fit.save_seconds` hold for it as well; the other keys of `fit` are those of class_conditional.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: Positive = Field(1000, description="optimizer steps")
    batch_size: Positive = Field(8, description="images per update")
    lr: Annotated[float, Field(gt=0)] = Field(1e-4, description="of AdamW, after a short warm-up constant")
    rank: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="of the low-rank layers: more learn more, and keep less of the model"
    )
    prompt: Templates = Field(
        "a photo of {class_name}", description="what the images are said to show; best that of generate.prompt"
    )
    prompt_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share trained without prompt, for guidance"
    )
    native_size: Annotated[int, Field(ge=8, multiple_of=8)] | None = Field(
        None, description="pixels of a side; best that of generate.native_size"
    )
    flip: bool = Field(False, description="also train on mirrored images")
    gradient_checkpointing: bool = Field(False, description="less memory, a third slower or so")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of the layers, the order and the noise")

    def of_training(self) -> dict[str, Any]:
        """Return what `text_to_image.fine_tune` takes of them as it stands."""
        return self.model_dump(exclude={"prompt"})

    def templates(self) -> list[str]:
        """Return the prompts with `{class_name}` in them."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt
