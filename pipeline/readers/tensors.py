"""How many bytes the elements of a tensor take, by the names that torch and safetensors give to their types."""

from __future__ import annotations

STORAGE_BYTES = {
    "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "ShortStorage": 2, "IntStorage": 4, "LongStorage": 8,
    "HalfStorage": 2, "FloatStorage": 4, "DoubleStorage": 8, "BFloat16Storage": 2, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16, "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1, "UntypedStorage": 1,
}  # fmt: skip
"""torch: bytes of one element of a storage."""

EXPORT_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2, 29: 1, 30: 1, 31: 1,
    32: 1, 33: 1, 34: 4, 35: 8,
}  # fmt: skip
"""torch.export: bytes of one element by its ScalarType."""
