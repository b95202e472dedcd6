"""The commands as Python functions, for notebooks and scripts: on arrays here, on folders in `Project`; docs/python.md.

They call the same functions as the commands, and give the same bytes for the same images, settings and seeds.
"""

from gdacli.api.classifiers import TrainedClassifier, load_classifier, probe, train
from gdacli.api.evaluations import ArmErrors, Evaluation, evaluate
from gdacli.api.generators import fit, generate, image_seeds, sample
from gdacli.api.projects import Project, ProjectEvaluation, create_project
from gdacli.api.selections import ProjectSelection, select
from gdacli.api.synthetic_pools import SyntheticPool
from gdacli.errors import GdaError

__all__ = [
    "ArmErrors",
    "Evaluation",
    "GdaError",
    "Project",
    "ProjectEvaluation",
    "ProjectSelection",
    "SyntheticPool",
    "TrainedClassifier",
    "create_project",
    "evaluate",
    "fit",
    "generate",
    "image_seeds",
    "load_classifier",
    "probe",
    "sample",
    "select",
    "train",
]
