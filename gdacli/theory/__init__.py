"""The papers' analyses as small exact programs: `gdacli theory NAME`. They need no project, no images and no torch."""
