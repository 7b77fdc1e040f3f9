"""A client of OVSDB (RFC 7047) over a UNIX socket: transactions alone, for rows that a shell would have to quote."""

import json
import socket
import uuid as uuids


class OvsdbError(Exception):
    pass


class Client:
    def __init__(self, path, database):
        self.path, self.database = str(path), database

    def transact(self, operations):
        connection = socket.socket(socket.AF_UNIX)
        with connection:
            connection.connect(self.path)
            connection.sendall(json.dumps({"method": "transact", "params": [self.database, *operations], "id": 1}).encode())
            decoder, pending = json.JSONDecoder(), ""
            while True:
                data = connection.recv(1 << 20)
                if not data:
                    raise OvsdbError(f"{self.path}: the server closed the connection")
                pending += data.decode()
                try:
                    message, end = decoder.raw_decode(pending)
                except ValueError:
                    continue
                if message.get("method") == "echo":
                    pending = pending[end:]
                    continue
                break
        results = message["result"]
        for result in results:
            if result and "error" in result:
                raise OvsdbError(f"{result['error']}: {result.get('details')}")
        return results

    def rows(self, table, columns, **equal):
        where = [[column, "==", value] for column, value in equal.items()]
        return self.transact([{"op": "select", "table": table, "where": where, "columns": [*columns, "_uuid"]}])[0]["rows"]

    def update(self, table, row, **equal):
        where = [[column, "==", value] for column, value in equal.items()]
        count = self.transact([{"op": "update", "table": table, "where": where, "row": row}])[0]["count"]
        if not count:
            raise OvsdbError(f"no row of {table} where {equal}")


def table_map(values):
    return ["map", [[key, value] for key, value in values.items()]]


def insert(table, **row):
    """An insert and the reference to its row for the same transaction."""
    name = "row" + uuids.uuid4().hex
    return {"op": "insert", "table": table, "row": row, "uuid-name": name}, ["named-uuid", name]


def add_to(table, column, references, **equal):
    return {"op": "mutate", "table": table, "where": [[key, "==", value] for key, value in equal.items()],
            "mutations": [[column, "insert", ["set", references]]]}


def remove_from(table, column, references, **equal):
    return {"op": "mutate", "table": table, "where": [[key, "==", value] for key, value in equal.items()],
            "mutations": [[column, "delete", ["set", references]]]}
