"""One configuration of another tool carried out by that tool: run by a Python that has it, without qcc.

    PYTHON other_tools.py TOOL CONFIG.json MODEL.onnx DATA.npz OUTPUT.onnx

Data has a first axis of samples; the tools are given them one by one. What Olive's passes call is called as they do.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Data = dict[str, np.ndarray]


def main() -> None:
    """Write the model."""
    tool, config, model, data, output = sys.argv[1:]
    arrays = dict(np.load(data))
    given = json.loads(Path(config).read_text(encoding="utf-8"))
    TOOLS[tool](given, Path(model), arrays, Path(output))


def _samples(data: Data) -> Iterator[Data]:
    for at in range(len(next(iter(data.values())))):
        yield {name: array[at : at + 1] for name, array in data.items()}


def _onnxruntime(config: Mapping[str, Any], model: Path, data: Data, output: Path) -> None:
    (name, given), *_ = config.items()
    if name == "MatMul4BitsQuantizer":
        _blocks(model, output, given["block_size"], given["is_symmetric"])
    elif name == "quantize_dynamic":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(model, output, weight_type=QuantType[given["weight_type"]])
    else:
        _static(given, model, data, output)


def _static(given: Mapping[str, Any], model: Path, data: Data, output: Path) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    samples = _samples(data)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Sample by sample."""

        def get_next(self) -> Data | None:
            """The next sample."""
            return next(samples, None)

    words: dict[str, Any] = dict(given)
    for key, kind in (("weight_type", QuantType), ("activation_type", QuantType), ("quant_format", QuantFormat)):
        if key in words:
            words[key] = kind[words[key]]
    if "calibrate_method" in words:
        words["calibrate_method"] = CalibrationMethod[words["calibrate_method"]]
    words["use_external_data_format"] = False
    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(prepared, output, Reader(), **words)
    prepared.unlink()


def _blocks(model: Path, output: Path, size: int, symmetric: bool) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(model), block_size=size, is_symmetric=symmetric, accuracy_level=0)
    quantizer.process()
    quantizer.model.save_model_to_file(str(output), False)


def _olive(config: Mapping[str, Any], model: Path, data: Data, output: Path) -> None:
    """Its passes: those of 8 bits hand their options to ONNX Runtime, those of blocks are its own."""
    step = next(one for one in config["passes"].values() if "Quantization" in one["type"])
    if step["type"] in ("OnnxQuantization", "OnnxStaticQuantization"):
        kind = {"uint8": "QUInt8", "int8": "QInt8"}
        given = {"weight_type": kind[step.get("precision", "int8")], "calibrate_method": step["calibrate_method"]}
        given["activation_type"] = kind[step.get("activation_type", "int8")]
        given["per_channel"] = step.get("per_channel", False)
        _static(given, model, data, output)
        return
    import onnx
    from olive.hardware.accelerator import AcceleratorSpec, Device
    from olive.model import ONNXModelHandler
    from olive.package_config import OlivePackageConfig
    from olive.passes.olive_pass import create_pass_from_dict

    options = {key: value for key, value in step.items() if key not in ("type", "external_data_name")}
    options["save_as_external_data"] = False
    kind_ = OlivePackageConfig.load_default_config().import_pass_module(step["type"])
    spec = AcceleratorSpec(accelerator_type=Device.CPU, execution_provider="CPUExecutionProvider")
    made = create_pass_from_dict(kind_, options, disable_search=True, accelerator_spec=spec)
    written = Path(made.run(ONNXModelHandler(model_path=str(model)), str(output)).model_path)
    if written != output:  # some passes write into a folder of that name
        whole = onnx.load(written)
        shutil.rmtree(output, ignore_errors=True)
        onnx.save(whole, output)


def _nncf(config: Mapping[str, Any], model: Path, data: Data, output: Path) -> None:
    import nncf
    import onnx

    (name, given), *_ = config.items()
    words: dict[str, Any] = dict(given)
    opened = onnx.load(model)
    if "ignored_scope" in words:
        words["ignored_scope"] = nncf.IgnoredScope(**words["ignored_scope"])
    dataset = nncf.Dataset(list(_samples(data)))
    if name == "quantize":
        if "preset" in words:
            words["preset"] = nncf.QuantizationPreset[words["preset"].upper()]
        made = nncf.quantize(opened, dataset, **words)
    else:
        words["mode"] = nncf.CompressWeightsMode[words["mode"].upper()]
        if "sensitivity_metric" in words:
            words["sensitivity_metric"] = nncf.SensitivityMetric[words["sensitivity_metric"].upper()]
        if words.get("scale_estimation") or "sensitivity_metric" in words:
            words["dataset"] = dataset
        made = nncf.compress_weights(opened, **words)
    onnx.save(made, output)


def _modelopt(config: Mapping[str, Any], model: Path, data: Data, output: Path) -> None:
    from modelopt.onnx.quantization import quantize

    given = {key: value for key, value in config.items() if key != "quantize_mode"}
    reader: Any = data if len(data) > 1 else next(iter(data.values()))
    quantize(str(model), config["quantize_mode"], reader, output_path=str(output), calibration_eps=["cpu"], **given)


TOOLS = {"onnxruntime": _onnxruntime, "olive": _olive, "nncf": _nncf, "modelopt": _modelopt}

if __name__ == "__main__":
    main()
