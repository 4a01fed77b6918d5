"""The effect of each choice in a recipe, measured on real galaxies."""
