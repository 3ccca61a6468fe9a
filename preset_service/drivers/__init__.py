"""The sources that presets can come from, one driver a file."""
