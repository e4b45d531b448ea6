"""MCAP files and ROS 2 bags, written by mcap, mcap-ros2-support and rosbags."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

NS = 1_000_000_000
HEADER = "================================================================================\n"
TIME = "MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
STD_HEADER = "MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
DEFINITIONS = {
    "std_msgs/msg/String": "string data",
    "std_msgs/msg/Float64": "float64 data",
    "std_msgs/msg/Float64MultiArray": (
        f"MultiArrayLayout layout\nfloat64[] data\n{HEADER}MSG: std_msgs/MultiArrayLayout\n"
        f"MultiArrayDimension[] dim\nuint32 data_offset\n{HEADER}"
        "MSG: std_msgs/MultiArrayDimension\nstring label\nuint32 size\nuint32 stride\n"
    ),
    "geometry_msgs/msg/Twist": (
        f"Vector3 linear\nVector3 angular\n{HEADER}MSG: geometry_msgs/Vector3\n"
        "float64 x\nfloat64 y\nfloat64 z\n"
    ),
    "sensor_msgs/msg/JointState": (
        "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\n"
        f"float64[] effort\n{HEADER}{STD_HEADER}{HEADER}{TIME}"
    ),
    "sensor_msgs/msg/Image": (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
        f"uint8 is_bigendian\nuint32 step\nuint8[] data\n{HEADER}{STD_HEADER}{HEADER}{TIME}"
    ),
    "sensor_msgs/msg/CompressedImage": (
        f"std_msgs/Header header\nstring format\nuint8[] data\n{HEADER}{STD_HEADER}{HEADER}{TIME}"
    ),
    "sensor_msgs/msg/PointCloud2": "uint8[] data",
}
STAMP = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "x"}
# (time in s, topic, type, message)
Sent = tuple[float, str, str, dict[str, Any]]


def joints(**positions: float) -> dict[str, Any]:
    values = list(positions.values())
    return {
        "header": STAMP,
        "name": list(positions),
        "position": values,
        "velocity": [v * 2 for v in values],
        "effort": [],
    }


def image(pixels: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> dict[str, Any]:
    """A sensor_msgs/Image; ``padding``: bytes after each row."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return {
        "header": STAMP,
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": rows.shape[1],
        "data": rows.tobytes(),
    }


def write_mcap(path: Path, sent: Sequence[Sent], **metadata: str) -> Path:
    from mcap_ros2.writer import Writer

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream, Writer(stream, chunk_size=4096) as writer:
        schemas = {}
        for time, topic, kind, message in sorted(sent, key=lambda s: s[0]):
            if kind not in schemas:
                schemas[kind] = writer.register_msgdef(kind, DEFINITIONS[kind])
            writer.write_message(topic, schemas[kind], message, 5 * NS + round(time * NS))
        if metadata:
            writer.add_metadata("about", metadata)
    return path


def write_json_mcap(path: Path, sent: Sequence[Sent]) -> Path:
    """JSON messages, as Foxglove's tools record them; bytes become base64."""
    from mcap.writer import Writer

    def plain(value: Any) -> Any:
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        channels: dict[str, int] = {}
        for time, topic, kind, message in sorted(sent, key=lambda s: s[0]):
            if topic not in channels:
                schema = writer.register_schema(kind, "jsonschema", b"{}")
                channels[topic] = writer.register_channel(topic, "json", schema)
            text = json.dumps({k: plain(v) for k, v in message.items()}).encode()
            stamp = 5 * NS + round(time * NS)
            writer.add_message(channels[topic], stamp, text, stamp)
        writer.finish()
    return path


def write_sqlite(folder: Path, sent: Sequence[Sent]) -> Path:
    """A ROS 2 bag with storage sqlite3."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)

    def make(kind: str, value: Any) -> Any:
        """A message of a type from plain values."""
        made = store.types[kind]
        fields = dict(zip(made.__dataclass_fields__, store.fielddefs[kind][1], strict=False))
        filled = {}
        for name, (_, about) in fields.items():
            given = value[name]
            if isinstance(given, dict):
                filled[name] = make(about[1] if isinstance(about, tuple) else about, given)
            elif isinstance(given, bytes):
                filled[name] = np.frombuffer(given, np.uint8)
            elif isinstance(given, list) and given and isinstance(given[0], float):
                filled[name] = np.array(given)
            elif isinstance(given, list) and not given:
                filled[name] = np.array([], np.float64)
            else:
                filled[name] = given
        return made(**filled)

    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {}
        for time, topic, kind, message in sorted(sent, key=lambda s: s[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            if "header" in message:
                stamp = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "x"}
                message = message | {"header": stamp}
            data = store.serialize_cdr(make(kind, message), kind)
            writer.write(connections[topic], 5 * NS + round(time * NS), data)
    return folder
