"""The ASN ConfigMap is the site's after the installation: what edit, upgrade, rollback and uninstall do to it."""

import json

from ..fabric import FIRST, LEAF_ASN, SUBNET
from ..release import MAPPING, Pod, kubectl, new_pod, objects, pods
from ..shell import run, until

EDITED_ASN = 65055


def mapping():
    found = [item for item in objects("configmaps") if item["metadata"]["name"] == MAPPING]
    return found and json.loads(found[0]["data"]["mapping.json"])


def asn(text):
    return int(text.get(SUBNET, 0)) if text else None


def edit(value):
    """As `kubectl edit` does: the object read, changed, and sent back by kubectl's own client."""
    script = f"sed -i 's/\\b{asn(mapping())}\\b/{value}/'"
    run("env", f"EDITOR={script}", f"KUBE_EDITOR={script}", "kubectl", "--namespace", "openstack", "edit", "configmap", MAPPING)


def server_side(world):
    through(world, "--server-side=true", "--server-side=true", "--server-side=true")


def client_side(world):
    through(world, "--server-side=false", "--server-side=false", "--server-side=false")


def through(world, at_install, at_upgrade, at_rollback):
    if world.release.installed():
        world.release.uninstall()
    world.release.label()
    world.release.install(at_install)
    world.check("the first installation creates it from the values", mapping(), asn(mapping()) == LEAF_ASN)
    pod = new_pod()
    world.session(pod)
    edit(EDITED_ASN)
    world.check("kubectl edit changes it", mapping(), asn(mapping()) == EDITED_ASN)
    before = pod
    world.release.upgrade(at_upgrade, "--set", "bgp.asn=4200000001")
    world.check("an upgrade keeps the edit", mapping(), asn(mapping()) == EDITED_ASN)
    pod = new_pod(before)
    until("the new pod has its configuration", pod.configuration)
    expected = f"neighbor {FIRST} remote-as {EDITED_ASN}"
    world.check("the new pod uses the edited ASN", [line.strip() for line in pod.configuration().splitlines() if "remote-as" in line], expected in pod.configuration())
    world.release.upgrade(at_upgrade, "--set", "bgp.asn=4200000002")
    world.check("a second upgrade keeps it", mapping(), asn(mapping()) == EDITED_ASN)
    world.release.rollback("1", at_rollback)
    world.check("a rollback to the first revision works", f"{world.release.status()}, revision {world.release.revision()}", world.release.status() == "deployed")
    world.check("and keeps the edit", mapping(), asn(mapping()) == EDITED_ASN)
    until("the rollback's pod runs", lambda: len(pods()) == 1 and "4200000002" not in Pod(pods()[0]).configuration(), 120)
    edit(LEAF_ASN)
    restarted(world)
    world.release.uninstall()
    world.check("uninstall removes it", mapping() or "gone", not mapping())


def restarted(world):
    """The documented way after an edit: `kubectl rollout restart`."""
    before = Pod(pods()[0])
    kubectl("rollout", "restart", "daemonset/ovn-bgp-agent")
    pod = new_pod(before)
    world.session(pod)
    world.check("after kubectl rollout restart the session uses the corrected ASN", pod.peers(), pod.remote_as(FIRST) == LEAF_ASN)
