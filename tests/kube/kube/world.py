"""What cases share: the network, the release, and the record of checks and figures."""

import time

from .fabric import FIRST, NODE
from .release import daemonset, new_pod
from .shell import until


class World:
    def __init__(self, fabric, release, output, say):
        self.fabric, self.release, self.output, self._say = fabric, release, output, say
        self.case, self.began, self.results = "", 0.0, []

    @property
    def leaf(self):
        return self.fabric.leaf

    def check(self, expected, seen, passed):
        """One row of the table. A failed check does not end the case."""
        seconds = time.monotonic() - self.began
        self.results.append({"kind": "check", "case": self.case, "expected": expected, "seen": " ".join(str(seen).split())[:300],
                             "passed": bool(passed), "seconds": round(seconds, 1)})
        self._say(f"  {'ok  ' if passed else 'FAIL'} {self.case:16} {expected}: {self.results[-1]['seen']}")
        return bool(passed)

    def figure(self, name, value, unit):
        self.results.append({"kind": "figure", "case": self.case, "name": name, "value": value, "unit": unit})
        self._say(f"       {self.case:16} {name}: {value} {unit}")

    def note(self, text):
        self.results.append({"kind": "note", "case": self.case, "text": text})
        self._say(f"       {self.case:16} {text}")

    def pod(self):
        """The running pod of the operator's own values: installs the release, or takes back what an earlier case changed."""
        self.release.label()
        if not self.release.installed():
            self.release.install()
            pod = new_pod()
        elif self.release.change:
            pod = self._reset()
        else:
            pod = new_pod()
        self.session(pod)
        return pod

    def upgraded(self, *options, peer=FIRST, family="ipv4 unicast"):
        """A `helm upgrade` with these options; the new pod, when its session is established."""
        before = new_pod()
        self.release.upgrade(*options)
        pod = new_pod(before)
        self.session(pod, peer, family)
        return pod

    def _reset(self):
        before, generation = new_pod(), daemonset()["metadata"]["generation"]
        self.release.reset()
        # The values may differ without a difference in the pod.
        return new_pod() if daemonset()["metadata"]["generation"] == generation else new_pod(before)

    def session(self, pod, peer=FIRST, family="ipv4 unicast", timeout=90):
        """Waits until the pod's session with `peer` is established."""
        until(f"the session with {peer} is established", lambda: pod.peers(family).get(peer) == "Established", timeout)

    def leaf_session(self, peer=NODE, timeout=60):
        until(f"the leaf's session with {peer} is established", lambda: self.leaf.peers().get(peer) == "Established", timeout)
