"""The shapes that cross HTTP, a file for each noun, each shape with an example. They know no row and no handler.

The example of a shape is also the example of every operation that answers with it (`api.reference` sees to that).
"""
