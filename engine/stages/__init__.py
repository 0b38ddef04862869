"""One module per stage. Stages never import one another; they meet in the run directory."""
