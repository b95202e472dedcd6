"""Data-centric curation for image classification: find late-learned images, add faithful variants, prove the gain."""

__version__ = "0.1.0"
