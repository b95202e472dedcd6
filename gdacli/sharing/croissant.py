"""Croissant metadata: what the files of a dataset hold, for tools that read any dataset by it.

Source: the Croissant format specification 1.1 (MLCommons).
"""

from pathlib import Path
from typing import Any

from gdacli.artifacts import sha256_file
from gdacli.published import INDEX
from gdacli.sharing.dataset_card import Config, DatasetFacts

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""That of the specification."""


def croissant(facts: DatasetFacts, folder: Path) -> dict[str, Any]:
    """Return the metadata as JSON-LD.

    Args:
        facts: of the dataset's card.
        folder: of the dataset; the hashes of its small files are taken.
    """
    license = facts.share["license"]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": facts.title,
        "description": f"{facts.num_images} synthetic images of {len(facts.manifest['class_names'])} classes, variants "
        f"of the training images of {facts.data_source}, for training image classifiers.",
        "license": license["link"] or license["name"] or license["id"],
        "url": f"https://huggingface.co/datasets/{facts.repo_id}",
        "version": f"1.0.0+{facts.revision}",
        "citeAs": f"https://huggingface.co/datasets/{facts.repo_id}",
        "creator": {"@type": "sc:Organization", "name": facts.repo_id.partition("/")[0]},
        "keywords": ["synthetic", "image classification", "data augmentation"],
        "distribution": [each for config in facts.configs for each in _files(config, folder)],
        "recordSet": [_records(config) for config in facts.configs],
    }


def _files(config: Config, folder: Path) -> list[dict[str, Any]]:
    index = f"{config.folder}{INDEX}"
    objects = [_file(index, sha256_file(folder / index), "application/x-parquet", folder)]
    for split in config.splits.values():
        for shard in split:
            objects.append(_file(f"{config.folder}{shard.name}", shard.sha256, "application/x-tar", folder))
    kind = "jpeg" if config.extension == "jpg" else config.extension
    images = {
        "@type": "cr:FileSet",
        "@id": f"{config.name}-images",
        "name": f"{config.name}-images",
        "description": "The images in the shards.",
        "containedIn": [{"@id": each["@id"]} for each in objects[1:]],
        "encodingFormat": f"image/{kind}",
        "includes": f"*.{config.extension}",
    }
    return [*objects, images]


def _file(name: str, sha256: str, encoding: str, folder: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{(folder / name).stat().st_size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _records(config: Config) -> dict[str, Any]:
    """Return the records of a configuration: each image, by its file's name joined with its row of the index."""
    index = {"fileObject": {"@id": f"{config.folder}{INDEX}"}}
    images = {"fileSet": {"@id": f"{config.name}-images"}}
    file_name = {**images, "extract": {"fileProperty": "filename"}}

    def field(name: str, kind: str, what: str, source: dict[str, Any], **more: Any) -> dict[str, Any]:
        told = {"name": name, "description": what, "dataType": kind}
        return {"@type": "cr:Field", "@id": f"{config.name}/{name}", **told, "source": source, **more}

    return {
        "@type": "cr:RecordSet",
        "@id": config.name,
        "name": config.name,
        "description": "Images with their classes.",
        "key": {"@id": f"{config.name}/key"},
        "field": [
            field(
                "key",
                "sc:Text",
                "Name of the sample.",
                {**file_name, "transform": {"regex": "^([^.]+)"}},
                references={**index, "extract": {"column": "key"}},
            ),
            field("image", "sc:ImageObject", "The image.", {**images, "extract": {"fileProperty": "content"}}),
            field("label", "sc:Integer", "Number of its class.", {**index, "extract": {"column": "label"}}),
        ],
    }
