"""Write down the operators a TensorFlow graph may use: `python tensorflow_ops.py > tensorflow_ops.txt`.

Run where the release of TensorFlow to be allowed is installed. Operators without side effects that only compute are
listed, and of those with a state the ones named here; whatever reads, writes, waits or calls out is left away.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

_NEVER = re.compile(
    r"(?:File|Path|Reader|Record|Dataset|PyFunc|Print|Summary|Logging|Debug|Rpc|Remote|Socket|Send$|Recv|Send(?!er)|Queue|"
    r"Checkpoint|Save|Restore|Sharded|Library|TPU|Tpu|Xla|Collective|Nccl|Distributed|Host|Iterator|Barrier|Session|Worker|"
    r"Dump|Snapshot|Service|Compile|Callback|Delete|Matching|Timestamp|Abort|Bigtable|Ragged.*Server|Outfeed|Infeed|"
    r"Configure|Shutdown|Device|Executable|Custom|External|Load|Retrieve|Mlir|MLIR|Db$|Sql|Fact$|Copy|RegisterDataset|"
    r"Stage|ImmutableConst|VocabRemapping|Proto|GetOptions|WindowOp|Prelinearize|Accumulator|Conditional.*Accumulator|GRPC|Grpc|Encapsulat|Thread|Multi.*Iterator|^_)"
)
_STATES = [
    "VarHandleOp",
    "ReadVariableOp",
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "VarIsInitializedOp",
    "Variable",
    "VariableV2",
    "VariableShape",
    "TemporaryVariable",
    "DestroyTemporaryVariable",
    "IsVariableInitialized",
    "Assign",
    "AssignAdd",
    "AssignSub",
    "ResourceGather",
    "ResourceGatherNd",
    "ResourceScatterAdd",
    "ResourceScatterUpdate",
    "ResourceScatterSub",
    "ResourceScatterMul",
    "ResourceScatterNdUpdate",
    "ResourceScatterNdAdd",
    "ResourceStridedSliceAssign",
    "HashTable",
    "HashTableV2",
    "MutableHashTable",
    "MutableHashTableV2",
    "MutableHashTableOfTensors",
    "MutableHashTableOfTensorsV2",
    "MutableDenseHashTable",
    "MutableDenseHashTableV2",
    "InitializeTable",
    "InitializeTableV2",
    "AnonymousHashTable",
    "AnonymousMutableHashTable",
    "LookupTableFind",
    "LookupTableFindV2",
    "LookupTableInsert",
    "LookupTableInsertV2",
    "LookupTableSize",
    "LookupTableSizeV2",
    "LookupTableExport",
    "LookupTableExportV2",
    "LookupTableImport",
    "LookupTableImportV2",
    "LookupTableRemoveV2",
    "RandomUniform",
    "RandomUniformInt",
    "RandomStandardNormal",
    "RandomGamma",
    "RandomPoisson",
    "RandomPoissonV2",
    "RandomShuffle",
    "TruncatedNormal",
    "ParameterizedTruncatedNormal",
    "Multinomial",
    "StatefulStandardNormalV2",
    "StatefulUniform",
    "StatefulTruncatedNormal",
    "StatefulUniformFullInt",
    "StatefulUniformInt",
    "StatefulRandomBinomial",
    "RngReadAndSkip",
    "RngSkip",
    "StatefulPartitionedCall",
    "PartitionedCall",
    "StatelessIf",
    "If",
    "StatelessWhile",
    "While",
    "StatelessCase",
    "Case",
    "TensorArrayV3",
    "TensorArrayWriteV3",
    "TensorArrayReadV3",
    "TensorArrayGatherV3",
    "TensorArrayScatterV3",
    "TensorArraySizeV3",
    "TensorArrayConcatV3",
    "TensorArraySplitV3",
    "TensorArrayCloseV3",
    "TensorArrayGradV3",
    "Stack",
    "StackV2",
    "StackPush",
    "StackPushV2",
    "StackPop",
    "StackPopV2",
    "StackClose",
    "StackCloseV2",
    "Assert",
    "EnsureShape",
    "Placeholder",
    "PlaceholderV2",
    "PlaceholderWithDefault",
    "NoOp",
    "FakeQuantWithMinMaxVars",
    "CudnnRNN",
    "CudnnRNNV2",
    "CudnnRNNV3",
    "CudnnRNNBackprop",
    "CudnnRNNBackpropV2",
    "CudnnRNNBackpropV3",
    "ResourceApplyAdam",
    "ResourceApplyGradientDescent",
    "NonMaxSuppressionV5",
    "SampleDistortedBoundingBox",
    "SampleDistortedBoundingBoxV2",
    "RandomCrop",
    "DebugGradientIdentity",
    "CTCGreedyDecoder",
    "FusedBatchNormV3",
    "DecodeJpeg",
    "DecodePng",
    "DecodeImage",
    "DisableCopyOnRead",
]


def main() -> None:
    tensorflow: Any = importlib.import_module("tensorflow")
    registry: Any = importlib.import_module("tensorflow.python.framework.op_def_registry")
    found = {name for name in dir(tensorflow.raw_ops) if registry.get(name) is not None}
    pure = {name for name in found if not registry.get(name).is_stateful and not _NEVER.search(name)}
    print(f"# Written by benchmarks/lists/tensorflow_ops.py from tensorflow {tensorflow.__version__}.")
    print(*sorted(pure | (found & set(_STATES))), sep="\n")


if __name__ == "__main__":
    main()
