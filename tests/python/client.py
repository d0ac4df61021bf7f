"""Every call of the Aerospike Python client against a source node, and what it ships to a destination.

    client.py SOURCE DESTINATION        each as host:port
"""

import sys
import time

import aerospike
from aerospike import exception
from aerospike_helpers.operations import operations

PATIENCE_S = 30
BINS = {"int": -7, "text": "héllo", "blob": bytearray([0, 1, 255]), "float": 2.5, "list": [1, "two"]}


def connect(seed):
    host, port = seed.split(":")
    client = aerospike.client({"hosts": [(host, int(port))]}).connect()
    assert len(client.get_node_names()) == 2, "every shard is found as a node"
    return client


def keys(set_name):
    values = [*range(16), -1, -(2**63), 2**63 - 1, "user1", "", "héllo"]
    values += [bytearray.fromhex("deadbeef"), bytearray(40)]
    return [("test", set_name, value) for value in values]


def refused(kind, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except kind:
        return
    raise AssertionError(f"{call} is not refused with {kind}")


def missing_record(client, key):
    refused(exception.RecordNotFound, client.get, key)
    refused(exception.RecordNotFound, client.touch, key)
    refused(exception.RecordNotFound, client.remove, key)
    assert client.exists(key)[1] is None
    update = {"exists": aerospike.POLICY_EXISTS_UPDATE}
    refused(exception.RecordNotFound, client.put, key, BINS, policy=update)


def plain_calls(client, key):
    client.put(key, BINS)
    _, meta, bins = client.get(key)
    assert bins == BINS and meta["gen"] == 1, (bins, meta)
    _, _, bins = client.select(key, ["int", "blob", "absent"])
    assert bins == {"int": -7, "blob": BINS["blob"]}, bins
    assert client.exists(key)[1]["gen"] == 1
    client.touch(key, 3600)
    meta = client.exists(key)[1]
    assert meta["gen"] == 2 and 3500 <= meta["ttl"] <= 3600, meta
    client.touch(key, aerospike.TTL_NEVER_EXPIRE)
    meta = client.exists(key)[1]
    assert meta["gen"] == 3 and meta["ttl"] == aerospike.TTL_NEVER_EXPIRE, meta


def changing_calls(client, key):
    client.increment(key, "int", 10)
    client.increment(key, "new", 1)
    client.append(key, "text", "!")
    client.prepend(key, "text", ">")
    _, meta, bins = client.get(key)
    assert (bins["int"], bins["new"], bins["text"]) == (3, 1, ">héllo!"), bins
    refused(exception.BinIncompatibleType, client.increment, key, "text", 1)
    refused(exception.BinIncompatibleType, client.append, key, "int", "x")
    steps = [
        operations.increment("int", 1),
        operations.append("text", "?"),
        operations.prepend("text", "<"),
        operations.touch(),
        operations.read("int"),
        operations.read("text"),
        operations.read("absent"),
    ]
    _, after, bins = client.operate(key, steps)
    assert after["gen"] == meta["gen"] + 1, after
    assert (bins["int"], bins["text"]) == (4, "<>héllo!?"), bins
    _, _, results = client.operate_ordered(key, [operations.read("int"), operations.read("new")])
    assert results == [("int", 4), ("new", 1)], results
    _, _, bins = client.operate(key, [operations.write("fresh", 5), operations.read("fresh")])
    assert bins == {"fresh": 5}, bins


def policies_and_removal(client, key):
    bins = {"a": 1, "b": 2}
    create = {"exists": aerospike.POLICY_EXISTS_CREATE}
    refused(exception.RecordExistsError, client.put, key, bins, policy=create)
    equal = {"gen": aerospike.POLICY_GEN_EQ}
    refused(exception.RecordGenerationError, client.put, key, bins, {"gen": 60000}, equal)
    replace = {"exists": aerospike.POLICY_EXISTS_CREATE_OR_REPLACE, "key": aerospike.POLICY_KEY_SEND}
    client.put(key, bins, policy=replace)
    assert client.get(key)[2] == bins
    client.remove_bin(key, ["a"])
    assert client.get(key)[2] == {"b": 2}
    client.operate(key, [operations.delete(), operations.write("c", 3)])
    assert client.get(key)[2] == {"c": 3}
    client.operate(key, [operations.delete()])
    assert client.exists(key)[1] is None
    client.put(key, bins)
    client.remove(key)
    assert client.exists(key)[1] is None


def settles(what, look):
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.01)


def shipping(source, destination, all_keys):
    send_key = {"key": aerospike.POLICY_KEY_SEND}
    for number, key in enumerate(all_keys):
        source.put(key, BINS, {"ttl": 3600}, send_key)
        source.put(key, {"int": number}, {"ttl": 3600}, send_key)
        source.append(key, "text", "!", {"ttl": 3600})

    def read(key):
        try:
            return destination.get(key)
        except exception.RecordNotFound:
            return key, {"ttl": None}, None

    for number, key in enumerate(all_keys):
        expected = {**BINS, "int": number, "text": "héllo!"}
        settles(f"{key} to arrive", lambda: read(key)[2] == expected)
        assert 3500 <= read(key)[1]["ttl"] <= 3600, read(key)[1]
    for number, key in enumerate(all_keys):
        if number % 2:
            source.remove_bin(key, ["list"])
        else:
            source.remove(key)
    for number, key in enumerate(all_keys):
        if number % 2:
            settles(f"a bin of {key} to go", lambda: "list" not in read(key)[2])
        else:
            settles(f"{key} to go", lambda: read(key)[2] is None)


def main():
    source, destination = map(connect, sys.argv[1:])
    all_keys = keys("demo") + keys(None)
    for key in all_keys:
        missing_record(source, key)
        plain_calls(source, key)
        changing_calls(source, key)
        policies_and_removal(source, key)
    refused(exception.AerospikeError, source.put, ("nope", "demo", 1), BINS)
    shipping(source, destination, all_keys)
    source.close()
    destination.close()


main()
