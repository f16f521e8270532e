"""Evaluations as one HTML file with pictures, to be read without anything else.

A module for each suite, imported by itself: only the sandbox needs torch.
"""
