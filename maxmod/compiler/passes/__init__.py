"""Graph passes, one file each; a pass is a function from a graph to a graph."""
