"""Galaxies as pictures: image files of any kind -> crops, their symmetries, and how large and bright they look."""
