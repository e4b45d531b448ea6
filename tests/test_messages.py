"""Messages of every protocol are checked before memory is used, and refused with a reason."""

from __future__ import annotations

import base64
import json
import math
import os
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

pytest.importorskip("starlette")
from fuzzing import mutated
from protocol_clients import IMAGE, encoded, http_client
from wire_formats import FORMATS, PIXELS, SERVICE, observation, png

from vla.serve.protocols.arrays import ImageDecoder, fields_of, to_array, to_number
from vla.serve.protocols.messages import MAX_ITEMS, read_json, read_msgpack
from vla.serve.service import RequestError

# Starlette's test client emits deprecation warnings
pytestmark = pytest.mark.filterwarnings("default")
# Messages of each protocol in the fuzz test; 25,000 are 1e5 in all.
FUZZED = int(os.environ.get("VLA_FUZZ", "100"))
LIMIT = 64 * 2**20  # bytes that one message may use
ALL = pytest.mark.parametrize("name", FORMATS)


@ALL
def test_a_valid_message_is_read(name: str) -> None:
    seen = observation(name, FORMATS[name].write(FORMATS[name].message()))
    assert seen["instruction"] == "go" and seen["state"].tolist() == [0.5, -1.0]
    assert np.array_equal(seen["images"]["top"], PIXELS)
    if name != "openvla":  # it has a smaller image there
        assert np.array_equal(seen["images"]["wrist"], PIXELS)


@ALL
@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("<U100000000", [1], b"x"),
        ("|S1000000000", [1], b"x"),
        ("|V1000000000", [1], b"x"),
        ("|O", [1], b"12345678"),
        ("<c16", [1], bytes(16)),
        ("<M8[s]", [1], bytes(8)),
        ("f4,f4", [1], bytes(8)),
        ("(", [1], b"x"),
        ("(2,3)f4", [1], bytes(24)),
        (["<f4"], [1], bytes(4)),
        ({"names": ["a"], "formats": ["<f4"]}, [1], bytes(4)),
        (None, [1], bytes(8)),
        (3, [1], bytes(8)),
        ("|u1", [0, 0, 3], b""),
        ("|u1", [0, 10**30], b""),
        ("|u1", [2**20, 2**20, 3], b"x"),
        ("|u1", [-1, 3], b"xxx"),
        ("|u1", [1] * 40, b"x"),
        ("|u1", [math.inf], b"x"),
        ("|u1", [math.nan], b"x"),
        ("|u1", [1.0], b"x"),
        ("|u1", [True], b"x"),
        ("|u1", ["1"], b"x"),
        ("|u1", [[1]], b"x"),
        ("|u1", "1", b"x"),
        ("|u1", None, b"x"),
        ("|u1", 1, b"x"),
        ("|u1", [2], b"x"),
        ("<f8", [1], b"x"),
    ],
)
def test_an_array_of_another_kind_or_size_is_refused(
    name: str, dtype: Any, shape: Any, data: bytes
) -> None:
    kind = FORMATS[name]
    if kind.write.__name__ == "to_msgpack" and shape == [0, 10**30] and name != "gr00t":
        shape = [0, 2**63]
    message = kind.write({"type": "observation", "seq": 1, "timestamp": 0, "payload": {},
                          "data": {}, "x": kind.array(dtype, shape, data)})  # fmt: skip
    tracemalloc.start()
    try:
        with pytest.raises(RequestError):
            kind.read(message)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 8, 3), (8, 8, 0), (8, 0)])
def test_an_empty_image_is_refused_whatever_it_comes_from(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape, np.uint8)
    state = {"state": np.zeros(2, np.float32)}
    with pytest.raises(RequestError):
        SERVICE.observation({"top": empty, "wrist": PIXELS, **state}, "go", None)
    with http_client() as http:
        for image in (encoded(empty), empty.tolist(), encoded(IMAGE) | {"shape": list(shape)}):
            reply = http.post("/act", json={"image": image, "instruction": "go"})
            assert reply.status_code == 400


@pytest.mark.parametrize(
    ("value", "dtype", "found"),
    [
        (255, "|u1", 255),
        (-128, "|i1", -128),
        (True, "|b1", True),
        (1, "<f4", 1.0),
        (256, "|u1", None),
        (-1, "<u8", None),
        (1e300, "<f4", None),
        pytest.param(10**400, "<f8", None, id="giant"),
        (1.5, "<i4", None),
        (True, "<i4", None),
        ("1", "<i4", None),
        (b"x", "S2000000000", None),
        (None, "<f4", None),
    ],
)
def test_a_number_outside_of_its_dtype_is_refused(value: Any, dtype: str, found: Any) -> None:
    if found is None:
        with pytest.raises(RequestError):
            to_number(value, dtype)
    else:
        assert to_number(value, dtype) == found


def test_images_are_measured_before_they_are_decoded() -> None:
    decode = ImageDecoder()
    assert np.array_equal(decode(png()), PIXELS)
    header = png()[:16] + (4000).to_bytes(4, "big") * 2 + png()[24:]
    for data, message in (
        (header.replace((4000).to_bytes(4, "big"), (30000).to_bytes(4, "big")), "30000 x 30000 px"),
        (header, "4000 x 4000 px"),
        (png()[:-8], "unreadable image"),
        (png().replace(b"IDAT", b"IDAT", 1)[:60] + bytes(9) + png()[69:], "unreadable image"),
        (png(kind="JPEG")[:300], "unreadable image"),
        (b"GIF89a", "PNG or JPEG"),
        ("text", "PNG or JPEG"),
    ):
        with pytest.raises(RequestError, match=message):
            ImageDecoder()(data)
    two = png()[8:33]  # a second header with another size
    with pytest.raises(RequestError):
        ImageDecoder()(png()[:33] + two + png()[33:])
    large = png(np.zeros((1500, 1500, 3), np.uint8))
    with pytest.raises(RequestError, match="in all encoded images"):
        for _ in range(5):  # small files, together many pixels
            decode(large)


def test_the_structure_of_a_message_is_counted_before_it_is_built() -> None:
    deep = b"\x91" * 1000 + b"\x01"
    many = b"\xdd" + (10**6).to_bytes(4, "big") + b"\x80" * 10**6
    tracemalloc.start()
    for message in (
        deep,
        many,
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa1a" + many,
        b"",
        b"\xc1",
        b"\x01",
    ):
        with pytest.raises(RequestError):
            read_msgpack(message, lambda value: value)
    for text in (
        b"[" * 10**5,
        b"{}," * 20_000,
        b'"' * 10**5,
        b'{"a":"\xed\xa0\x80"}',
        b"\xff",
        b"1",
    ):
        with pytest.raises(RequestError):
            read_json(text, lambda value: value)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    ext = msgpack.packb({"a": msgpack.ExtType(3, b"abc"), "b": [1.5, None, -7, 2**40, "é" * 40]})
    assert read_msgpack(ext, dict)["b"] == [1.5, None, -7, 2**40, "é" * 40]
    assert MAX_ITEMS < 10**6


def test_texts_that_are_not_unicode_are_refused() -> None:
    for body in (b'{"instruction": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": ["x", "\\ud800"]}'):
        with pytest.raises(RequestError, match="surrogate"):
            fields_of(read_json(body, dict))
    with http_client() as http:
        reply = http.post("/act", content=b'{"\\ud800": 1, "instruction": "go"}')
        assert reply.status_code == 400
    assert fields_of(read_json(b'{"a": "\\ud83d\\ude00"}', dict)) == {"a": "\U0001f600"}


def test_lists_become_arrays_of_numbers_and_nothing_else() -> None:
    lists = {"a": [[1, 2], [3, 4]], "b": [1, 2.5], "c": [True], "d": [[1], [2, 3]], "e": ["x"]}
    fields = fields_of(lists | {"f": [10**30], "g": [], "h": [[[[[[[[[1]]]]]]]]]})
    kinds = {k: getattr(v, "dtype", None) for k, v in fields.items()}
    assert kinds == dict.fromkeys("abcdefgh") | {"a": np.int64, "b": np.float64, "c": np.bool_}
    assert to_array(bytes(8), "float32", [2]).tolist() == [0, 0]
    http_body = {"image": [["x" * 10**5] * 9] * 9, "instruction": "go"}
    with http_client() as http:
        assert http.post("/act", json=http_body).status_code == 400


@pytest.mark.parametrize(
    "state",
    ["1,2", [1e300, 0], ["1", "2"], [[1, 2], [3]], {"a": 1}, pytest.param(10**400, id="giant")],
)
def test_a_state_of_another_kind_is_refused(state: Any) -> None:
    body = {"top": encoded(IMAGE), "instruction": "go", "state": state}
    with http_client(state_dim=2) as http:
        reply = http.post("/act", content=json.dumps(body))
        assert reply.status_code == 400 and "state" in reply.json()["error"]


def test_base64_images_and_data_urls_are_images() -> None:
    plain = base64.b64encode(png(IMAGE)).decode()
    with http_client() as http:
        for text in (plain, f"data:image/png;base64,{plain}"):
            reply = http.post("/act", json={"image": text, "instruction": "go"})
            assert reply.status_code == 200
            assert np.frombuffer(base64.b64decode(reply.json()["__numpy__"]), "<f4")[0] == 100
        for text in (plain[:40], f"data:image/png;base64,{plain[:-9]}", f"{plain[:99]}?", "x"):
            reply = http.post("/act", json={"image": text, "instruction": "go"})
            assert reply.status_code == 400


@ALL
def test_mutated_messages_are_read_or_refused(name: str) -> None:
    tracemalloc.start()
    try:
        for message in mutated(name, FUZZED, seed=0):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                observation(name, message)
            except RequestError as error:
                str(error).encode()
            assert tracemalloc.get_traced_memory()[1] - before < LIMIT
    finally:
        tracemalloc.stop()
