"""`python -m admin`: the same as `vmshepherd`."""

from admin.main import main

if __name__ == "__main__":
    main()
