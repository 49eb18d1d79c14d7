"""The apps on a real SuperLink with real SuperNodes."""

from __future__ import annotations

import json
from pathlib import Path

import tomli_w

SERVER = '''
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp
import time

app = ServerApp()


@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    asked = [Message(RecordDict({"c": ConfigRecord({"n": 1})}), node, "train") for node in nodes]
    replies = grid.send_and_receive(asked, timeout=60)
    for line in sorted(reply.content["c"]["line"] for reply in replies):
        print("answer", line)
    print("config", context.run_config["config"])
'''
CLIENT = '''
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    secret = Path(context.node_config["data-path"]).read_text()
    line = context.node_config["partner"] + " " + secret
    return Message(RecordDict({"c": ConfigRecord({"line": line})}), reply_to=message)
'''


def _tiny_app(folder: Path) -> Path:
    folder.mkdir()
    (folder / "server_side.py").write_text(SERVER)
    (folder / "client_side.py").write_text(CLIENT)
    (folder / "pyproject.toml").write_text(tomli_w.dumps({
        "project": {"name": "tiny", "version": "0.1.0", "description": "a test",
                    "license": "Apache-2.0"},
        "tool": {"flwr": {"app": {
            "publisher": "tests", "config": {"config": ""},
            "components": {"serverapp": "server_side:app", "clientapp": "client_side:app"}}}},
    }))
    return folder


def test_each_node_has_its_own_config_and_a_json_config_arrives_unchanged(
    tmp_path: Path, federation
) -> None:
    nodes = []
    for partner in ("ada", "bea"):
        data = tmp_path / f'of "{partner}" = 1.txt'
        data.write_text(f"data of {partner}")
        nodes.append({"partner": partner, "data-path": str(data)})
    config = json.dumps({"quote": "it's \"so\" = 1", "path": "C:\\x", "umlaut": "ü \U0001f600"},
                        ensure_ascii=False)
    running = federation(nodes)
    log = running.run(_tiny_app(tmp_path / "tiny"), {"config": config})
    assert "answer ada data of ada\nanswer bea data of bea" in log
    assert f"config {config}" in log
    running.stop()
    assert running.remaining() == []
