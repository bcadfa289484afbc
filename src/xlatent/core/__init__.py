"""What all rooms share: nouns, statistics, grids, errors; it imports nothing else of xlatent."""
