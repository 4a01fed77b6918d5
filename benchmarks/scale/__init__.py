"""What a job costs besides images and training steps, by the number of galaxies."""
