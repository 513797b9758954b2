# Tests are named here.
