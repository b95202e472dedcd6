"""What others train on and run: image folders, tables and shards for any tool, the classifier for any runtime."""
