"""What a request for an answer and the answer look like on the wire: the Open Inference Protocol V2 and our simple form.

Pure functions on bytes and arrays, run in the sandboxed child that holds the model; they know no socket and no runtime.
`signature`, `refusals` and `schemas` import neither numpy nor Pillow, so that the parent may use them.
"""
