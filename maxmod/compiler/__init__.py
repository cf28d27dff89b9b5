"""The compiler: from a graph to a schedule of steps. It imports no backend and no array library."""
