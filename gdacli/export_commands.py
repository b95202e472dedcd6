"""The commands that take results out of a project: to other tools, and to images that nobody has labelled."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from gdacli.invocation import WAIT_BRIEFLY, enter, guard, run_stage, show
from gdacli.options import AsJson, Debug, Directory, Overrides


def export(
    format: Annotated[
        Literal["imagefolder", "parquet", "webdataset", "onnx"],
        typer.Option(help="What for: torchvision, datasets, webdataset and timm, or any ONNX runtime."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder, new or empty; of onnx the file to write.")],
    arm: Annotated[
        str | None, typer.Option(help="An arm's mix with the validation and test images; the pool when left out.")
    ] = None,
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="Of onnx: a trained classifier's folder.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Write an arm, the pool or a classifier as files that others read: image folder, parquet, webdataset, ONNX.

    Example: `gdacli export --format imagefolder --arm targeted -o shared/targeted`
    """
    if (format == "onnx") != (model is not None):
        raise typer.BadParameter("--model goes with --format onnx, and is needed there")
    if format != "onnx":
        run_stage("export", overrides, as_json, debug, directory, False, format=format, output=output, arm=arm)
        return
    if arm is not None or overrides:
        raise typer.BadParameter("--arm and -S do not go with --format onnx, which takes the classifier of --model")

    def work() -> None:
        os.environ.setdefault(*WAIT_BRIEFLY)
        from gdacli.stages import export_model as stage

        enter(directory)
        show(stage.run(model or Path(), output), stage.summary, as_json)

    guard(work, debug)


def predict(
    images: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images, in folders at any depth, or one image.")],
    model: Annotated[Path, typer.Option(metavar="DIR", help="Folder with a classifier's config.json and weights.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the CSV to this file, not to stdout.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Rows per image: its K likeliest classes.")] = 1,
    resize: Annotated[
        Literal["crop", "squash", "pad"] | None,
        typer.Option(help="Resize first as `prepare` did with data.image_size and this data.resize."),
    ] = None,
    on_bad_image: Annotated[
        Literal["error", "skip"], typer.Option(help="An image that does not decode ends it, or is said and left out.")
    ] = "error",
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Classify images with a trained classifier: a CSV of file, class and probability. Needs no project.

    Example: `gdacli predict photos --model data/train/targeted-0 -o photos.csv`
    """

    def work() -> None:
        os.environ.setdefault(*WAIT_BRIEFLY)
        from gdacli.stages import predict as stage

        enter(directory)
        result = stage.run(images, model, output, top=top, resize=resize, on_bad_image=on_bad_image)
        show(result, stage.summary, as_json)

    guard(work, debug)
