"""What is shared: the folders of a dataset and of a model, their cards, and the Hub."""
