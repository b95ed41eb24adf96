"""What runs where: covers a graph with lowerings for one target, compiles it and replays it."""
