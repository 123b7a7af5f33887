"""What runs a compiled model: the Program as data, its executor, threads and profiles. No compiler
code is imported here."""
