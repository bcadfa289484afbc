"""The Chandra Source Catalog: what it says, and its files."""
