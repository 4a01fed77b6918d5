"""What each choice of a recipe is worth on real galaxies."""
