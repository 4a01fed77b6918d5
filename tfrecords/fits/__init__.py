"""FITS images as colour pictures. Workers import this only for FITS files, and then astropy (the extra `fits`)."""
