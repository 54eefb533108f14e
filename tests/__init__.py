"""Tests of the suite and of all that it is made of; a folder for each package."""
