# shellcheck shell=bash
# Checks of .zuul.yaml and playbooks/ that need no Zuul.
# shellcheck source=python.sh
source "${BASH_SOURCE[0]%/*}/python.sh"

# Zuul 14 runs playbooks with Ansible 11, which is ansible-core 2.18.
readonly zuul_tools=(zuulcilint==1.0.0 yamllint==1.38.0 ansible-core==2.18.19 ansible-lint==26.10.1 voluptuous==0.16.0)
# Zuul itself, without the dozens of packages that its services need, for its zuul_return: it rejects artifacts that Zuul would
# reject. The checks here and tests/playbooks/run use it.
readonly zuul_package=zuul==14.3.0

# Sets `python_tools` and the environment variables by which ansible-playbook finds zuul_return.
ensure_zuul_tools() {
  ensure_python_tools zuul "${zuul_tools[@]}"
  local venv=${python_tools%/bin} plugins
  plugins=$venv/zuul-plugins
  if [[ $(cat "$venv/zuul.txt" 2>/dev/null) != "$zuul_package" ]]; then
    say "  installing from PyPI into $venv: $zuul_package"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps "$zuul_package" >&2 </dev/null ||
      die "installing $zuul_package from PyPI failed"
    # Only this plugin: Zuul's others replace Ansible's own by plugins that use Zuul's console.
    rm -rf "$plugins"
    mkdir "$plugins"
    ln -s "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zuul/ansible/11/action/zuul_return.py" "$plugins/"
    printf '%s\n' "$zuul_package" >"$venv/zuul.txt"
  fi
  export ANSIBLE_ACTION_PLUGINS=$plugins ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_NOCOLOR=1
}

# check_zuul [DIRECTORY]: checks the project, or a copy of it.
check_zuul() (
  cd "${1:-$project}" || exit
  local playbook
  # ansible-lint calls ansible-playbook and yamllint by name.
  PATH=$python_tools:$PATH
  yamllint --strict .zuul.yaml .yamllint.yaml playbooks || exit
  # Checks the schema, and that every playbook named by a job exists.
  zuulcilint --check-playbook-paths --warnings-as-errors .zuul.yaml || exit
  for playbook in playbooks/*.yaml; do
    ansible-playbook --inventory primary, --syntax-check "$playbook" >/dev/null || exit
  done
  # The syntax check does not read files that are included at run time, so this playbook imports each of them.
  local tasks=playbooks/.every-task.yaml file
  trap 'rm -f "$tasks"' EXIT
  echo '- hosts: primary' >"$tasks"
  echo '  tasks:' >>"$tasks"
  for file in playbooks/roles/obgp_build/tasks/*.yaml; do
    echo "    - import_role: {name: obgp_build, tasks_from: $(basename "$file")}" >>"$tasks"
  done
  ansible-playbook --inventory primary, --syntax-check "$tasks" >/dev/null || exit
  rm "$tasks"
  ansible-lint --offline --nocolor --profile production --skip-list "$ansible_lint_skips" -q playbooks || exit
)

# no-role-prefix: the variables of include_tasks are local to the included file.
readonly ansible_lint_skips='var-naming[no-role-prefix]'
