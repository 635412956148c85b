"""The files that are installed beside the package."""
