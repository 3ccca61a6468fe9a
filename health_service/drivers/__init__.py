"""The checks that come with the suite, one file each."""
