{{/*
Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

   http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/}}

{{/*
abstract: |
  Probes of FRR, by its vty. `vtysh -d DAEMON` fails if the daemon does not answer; without `-d` a missing daemon is not an error.
*/}}
{{- define "ovn_bgp_agent.probes.frr_startup" }}
exec:
  command:
    - vtysh
    - -d
    - bgpd
    - -c
    - show version
{{- end }}

{{- define "ovn_bgp_agent.probes.frr_readiness" }}
{{- include "ovn_bgp_agent.probes.frr_startup" . }}
{{- end }}

{{- define "ovn_bgp_agent.probes.frr_liveness" }}
exec:
  command:
    - sh
    - -c
    - vtysh -d zebra -c 'show version' && vtysh -d bgpd -c 'show version'
{{- end }}

{{/*
abstract: |
  Probes of the agent.
*/}}
{{- define "ovn_bgp_agent.probes.ovn_bgp_agent_startup" }}
exec:
  command:
    - obgp-runtime
    - health
    - startup
{{- end }}

{{- define "ovn_bgp_agent.probes.ovn_bgp_agent_liveness" }}
exec:
  command:
    - obgp-runtime
    - health
    - live
{{- end }}

{{- define "ovn_bgp_agent.probes.ovn_bgp_agent_readiness" }}
exec:
  command:
    - obgp-runtime
    - health
    - ready
{{- end }}

{{/*
abstract: |
  Probes of the exporter.
*/}}
{{- define "ovn_bgp_agent.probes.frr_exporter_startup" }}
httpGet:
  path: /
  port: metrics
{{- end }}

{{- define "ovn_bgp_agent.probes.frr_exporter_liveness" }}
{{- include "ovn_bgp_agent.probes.frr_exporter_startup" . }}
{{- end }}

{{- define "ovn_bgp_agent.probes.frr_exporter_readiness" }}
{{- include "ovn_bgp_agent.probes.frr_exporter_startup" . }}
{{- end }}

{{/*
abstract: |
  All probes of a container.
usage: |
  {{ tuple . "frr" | include "ovn_bgp_agent.probes.all" | indent 10 }}
*/}}
{{- define "ovn_bgp_agent.probes.all" -}}
{{- $envAll := index . 0 -}}
{{- $container := index . 1 -}}
{{- range $type := list "startup" "liveness" "readiness" -}}
{{- $template := include (printf "ovn_bgp_agent.probes.%s_%s" $container $type) $envAll | fromYaml -}}
{{- dict "envAll" $envAll "component" "ovn_bgp_agent" "container" $container "type" $type "probeTemplate" $template | include "helm-toolkit.snippets.kubernetes_probe" }}
{{ end -}}
{{- end -}}
