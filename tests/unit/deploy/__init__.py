"""What is shipped beside the package."""
