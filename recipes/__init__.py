"""Recipes: code that makes what the package ships, kept beside it and never imported by it."""
