"""The stages: each reads files, calls the layers below, and writes files; no stage imports another."""
