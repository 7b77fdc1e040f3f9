"""Probe of the state file that the agent writes for health checks."""

import json
import os
import pathlib
import stat
import tempfile
import time
from unittest import mock


def state_file():
    """reconciliations and progress are reported in the state file"""
    from ovn_bgp_agent import agent, privileged

    service = agent.BGPAgent.__new__(agent.BGPAgent)
    service.agent_driver = mock.Mock()

    def call():
        raise AssertionError("runs in the daemon only")

    call.__module__ = "ovn_bgp_agent.privileged.probe"
    call = privileged.default.entrypoint(call)
    privileged.default.channel = mock.Mock(running=True)

    with tempfile.TemporaryDirectory() as directory, mock.patch.dict(os.environ):
        path = pathlib.Path(directory, "state.json")

        def read():
            return json.loads(path.read_text())

        service.sync()
        assert not list(pathlib.Path(directory).iterdir()), "written without the variable"

        os.environ["OVN_BGP_AGENT_STATE_FILE"] = str(path)
        before = time.monotonic()

        def syncing():
            running = read()["reconciliations"]["sync"]
            assert running["began"] >= before and running["ended"] is None, running
            written = path.stat().st_mtime_ns
            call()
            assert path.stat().st_mtime_ns == written, "more than one write in a second"
            with mock.patch("time.monotonic", return_value=time.monotonic() + 1):
                call()
            assert read()["time"] > before + 1, "a privileged call does not count as progress"

        service.agent_driver.sync.side_effect = syncing
        service.sync()
        state = read()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert state["pid"] == os.getpid()
        done = state["reconciliations"]["sync"]
        assert done["error"] is None, done
        assert done["began"] <= done["ended"] == done["succeeded"], done

        service.agent_driver.sync.side_effect = KeyError("br-ex")
        service.agent_driver.frr_sync.side_effect = RuntimeError("first\nsecond")
        service.sync()
        service.frr_sync()
        state = read()["reconciliations"]
        assert state["sync"]["error"] == "KeyError: 'br-ex'", state
        assert state["sync"]["succeeded"] == done["succeeded"], state
        assert state["sync"]["ended"] > done["ended"], state
        assert state["frr_sync"]["error"] == "RuntimeError: first second", state
        assert state["frr_sync"]["succeeded"] is None, state

        unwritable(directory, service)


def unwritable(directory, service):
    """A state file that cannot be written is logged once and does not fail the agent."""
    from ovn_bgp_agent.utils import state

    os.environ["OVN_BGP_AGENT_STATE_FILE"] = os.path.join(directory, "missing", "state.json")
    service.agent_driver.sync.side_effect = None
    with mock.patch.object(state, "LOG") as log:
        service.sync()
        service.sync()
    assert log.error.call_count == 1, log.error.call_args_list


PROBES = {"0012": state_file}
