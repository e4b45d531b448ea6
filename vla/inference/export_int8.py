"""Exported graphs with weights in 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def quantized(models: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The models with int8 weights in matrix products; activations stay in float32.

    The weights have one scale per block of 32 numbers (``MatMulNBits`` of onnxruntime).
    Convolutions and embeddings are unchanged.
    """
    import onnx_ir
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )
    from onnxruntime.quantization.onnx_model import ONNXModel

    logging.getLogger("onnxruntime.quantization").setLevel(logging.ERROR)
    out: dict[str, Any] = {}
    for name, model in models.items():
        proto = ONNXModel(onnx_ir.to_proto(model))
        proto.replace_gemm_with_matmul()
        config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, bits=8)
        quantizer = MatMulNBitsQuantizer(proto.model, algo_config=config)
        quantizer.process()
        out[name] = onnx_ir.from_proto(quantizer.model.model)
    return out
