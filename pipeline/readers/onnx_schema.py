"""The messages of ONNX files: every field by its number, as (name, kind, repeated).

Copied from the descriptors of onnx 1.23; a test compares the two. A kind is `int`, `float`, `double`, `text`, `bytes` or
the name of another message.
"""

from __future__ import annotations

from pipeline.readers.protobuf import Field

MESSAGES: dict[str, dict[int, Field]] = {
    "AttributeProto": {
        1: ("name", "text", False),
        2: ("f", "float", False),
        3: ("i", "int", False),
        4: ("s", "bytes", False),
        5: ("t", "TensorProto", False),
        6: ("g", "GraphProto", False),
        7: ("floats", "float", True),
        8: ("ints", "int", True),
        9: ("strings", "bytes", True),
        10: ("tensors", "TensorProto", True),
        11: ("graphs", "GraphProto", True),
        13: ("doc_string", "text", False),
        14: ("tp", "TypeProto", False),
        15: ("type_protos", "TypeProto", True),
        20: ("type", "int", False),
        21: ("ref_attr_name", "text", False),
        22: ("sparse_tensor", "SparseTensorProto", False),
        23: ("sparse_tensors", "SparseTensorProto", True),
    },
    "ValueInfoProto": {
        1: ("name", "text", False),
        2: ("type", "TypeProto", False),
        3: ("doc_string", "text", False),
        4: ("metadata_props", "StringStringEntryProto", True),
    },
    "NodeProto": {
        1: ("input", "text", True),
        2: ("output", "text", True),
        3: ("name", "text", False),
        4: ("op_type", "text", False),
        5: ("attribute", "AttributeProto", True),
        6: ("doc_string", "text", False),
        7: ("domain", "text", False),
        8: ("overload", "text", False),
        9: ("metadata_props", "StringStringEntryProto", True),
        10: ("device_configurations", "NodeDeviceConfigurationProto", True),
    },
    "IntIntListEntryProto": {
        1: ("key", "int", False),
        2: ("value", "int", True),
    },
    "NodeDeviceConfigurationProto": {
        1: ("configuration_id", "text", False),
        2: ("sharding_spec", "ShardingSpecProto", True),
        3: ("pipeline_stage", "int", False),
    },
    "ShardingSpecProto": {
        1: ("tensor_name", "text", False),
        2: ("device", "int", True),
        3: ("index_to_device_group_map", "IntIntListEntryProto", True),
        4: ("sharded_dim", "ShardedDimProto", True),
    },
    "ShardedDimProto": {
        1: ("axis", "int", False),
        2: ("simple_sharding", "SimpleShardedDimProto", True),
    },
    "SimpleShardedDimProto": {
        1: ("dim_value", "int", False),
        2: ("dim_param", "text", False),
        3: ("num_shards", "int", False),
    },
    "TrainingInfoProto": {
        1: ("initialization", "GraphProto", False),
        2: ("algorithm", "GraphProto", False),
        3: ("initialization_binding", "StringStringEntryProto", True),
        4: ("update_binding", "StringStringEntryProto", True),
    },
    "ModelProto": {
        1: ("ir_version", "int", False),
        2: ("producer_name", "text", False),
        3: ("producer_version", "text", False),
        4: ("domain", "text", False),
        5: ("model_version", "int", False),
        6: ("doc_string", "text", False),
        7: ("graph", "GraphProto", False),
        8: ("opset_import", "OperatorSetIdProto", True),
        14: ("metadata_props", "StringStringEntryProto", True),
        20: ("training_info", "TrainingInfoProto", True),
        25: ("functions", "FunctionProto", True),
        26: ("configuration", "DeviceConfigurationProto", True),
    },
    "DeviceConfigurationProto": {
        1: ("name", "text", False),
        2: ("num_devices", "int", False),
        3: ("device", "text", True),
    },
    "StringStringEntryProto": {
        1: ("key", "text", False),
        2: ("value", "text", False),
    },
    "TensorAnnotation": {
        1: ("tensor_name", "text", False),
        2: ("quant_parameter_tensor_names", "StringStringEntryProto", True),
    },
    "GraphProto": {
        1: ("node", "NodeProto", True),
        2: ("name", "text", False),
        5: ("initializer", "TensorProto", True),
        10: ("doc_string", "text", False),
        11: ("input", "ValueInfoProto", True),
        12: ("output", "ValueInfoProto", True),
        13: ("value_info", "ValueInfoProto", True),
        14: ("quantization_annotation", "TensorAnnotation", True),
        15: ("sparse_initializer", "SparseTensorProto", True),
        16: ("metadata_props", "StringStringEntryProto", True),
    },
    "TensorProto": {
        1: ("dims", "int", True),
        2: ("data_type", "int", False),
        3: ("segment", "TensorProto.Segment", False),
        4: ("float_data", "float", True),
        5: ("int32_data", "int", True),
        6: ("string_data", "bytes", True),
        7: ("int64_data", "int", True),
        8: ("name", "text", False),
        9: ("raw_data", "bytes", False),
        10: ("double_data", "double", True),
        11: ("uint64_data", "int", True),
        12: ("doc_string", "text", False),
        13: ("external_data", "StringStringEntryProto", True),
        14: ("data_location", "int", False),
        16: ("metadata_props", "StringStringEntryProto", True),
    },
    "TensorProto.Segment": {
        1: ("begin", "int", False),
        2: ("end", "int", False),
    },
    "SparseTensorProto": {
        1: ("values", "TensorProto", False),
        2: ("indices", "TensorProto", False),
        3: ("dims", "int", True),
    },
    "TensorShapeProto": {
        1: ("dim", "TensorShapeProto.Dimension", True),
    },
    "TensorShapeProto.Dimension": {
        1: ("dim_value", "int", False),
        2: ("dim_param", "text", False),
        3: ("denotation", "text", False),
    },
    "TypeProto": {
        1: ("tensor_type", "TypeProto.Tensor", False),
        4: ("sequence_type", "TypeProto.Sequence", False),
        5: ("map_type", "TypeProto.Map", False),
        6: ("denotation", "text", False),
        7: ("opaque_type", "TypeProto.Opaque", False),
        8: ("sparse_tensor_type", "TypeProto.SparseTensor", False),
        9: ("optional_type", "TypeProto.Optional", False),
    },
    "TypeProto.Tensor": {
        1: ("elem_type", "int", False),
        2: ("shape", "TensorShapeProto", False),
    },
    "TypeProto.Sequence": {
        1: ("elem_type", "TypeProto", False),
    },
    "TypeProto.Map": {
        1: ("key_type", "int", False),
        2: ("value_type", "TypeProto", False),
    },
    "TypeProto.Optional": {
        1: ("elem_type", "TypeProto", False),
    },
    "TypeProto.SparseTensor": {
        1: ("elem_type", "int", False),
        2: ("shape", "TensorShapeProto", False),
    },
    "TypeProto.Opaque": {
        1: ("domain", "text", False),
        2: ("name", "text", False),
    },
    "OperatorSetIdProto": {
        1: ("domain", "text", False),
        2: ("version", "int", False),
    },
    "FunctionProto": {
        1: ("name", "text", False),
        4: ("input", "text", True),
        5: ("output", "text", True),
        6: ("attribute", "text", True),
        7: ("node", "NodeProto", True),
        8: ("doc_string", "text", False),
        9: ("opset_import", "OperatorSetIdProto", True),
        10: ("domain", "text", False),
        11: ("attribute_proto", "AttributeProto", True),
        12: ("value_info", "ValueInfoProto", True),
        13: ("overload", "text", False),
        14: ("metadata_props", "StringStringEntryProto", True),
    },
}
