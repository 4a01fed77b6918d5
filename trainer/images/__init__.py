"""Images of galaxies: files of any kind -> crops, their symmetries, and the sizes and brightnesses of galaxies."""
