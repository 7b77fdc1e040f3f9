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
  Environment of the init container: the options of `obgp-runtime frr-init`.
usage: |
  {{ include "ovn_bgp_agent.utils.env_init" . | indent 12 }}
*/}}
{{- define "ovn_bgp_agent.utils.env_init" -}}
{{- $bgp := .Values.bgp -}}
- name: INTERFACE
  value: {{ $bgp.interface | quote }}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: NODE_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
- name: ASN_MAPPING
  value: /etc/asn-mapping
{{- $variables := dict }}
{{- $peer_ip := include "ovn_bgp_agent.utils.joined" $bgp.peer_ip }}
{{- $peer_interface := include "ovn_bgp_agent.utils.joined" $bgp.peer_interface }}
{{- if and $peer_ip $peer_interface }}
{{- fail "bgp.peer_ip and bgp.peer_interface exclude each other: one of them must be empty" }}
{{- else if $peer_interface }}
{{- $_ := set $variables "BGP_PEER_INTERFACE" $peer_interface }}
{{- else }}
{{- $_ := set $variables "BGP_PEER_IP" ($peer_ip | default "detection") }}
{{- end }}
{{- $_ := set $variables "BGP_PEER_AS" (include "ovn_bgp_agent.utils.asn" $bgp.peer_asn | default "mapping") }}
{{- with include "ovn_bgp_agent.utils.asn" $bgp.asn }}
{{- $_ := set $variables "BGP_AS" . }}
{{- end }}
{{- if $bgp.evpn.enabled }}
{{- $_ := set $variables "EVPN_RR_IP" (required "bgp.evpn.rr_ip is required if bgp.evpn.enabled is true" $bgp.evpn.rr_ip) }}
{{- $_ := set $variables "EVPN_RR_AS" (required "bgp.evpn.rr_asn is required if bgp.evpn.enabled is true" (include "ovn_bgp_agent.utils.asn" $bgp.evpn.rr_asn)) }}
{{- end }}
{{- $_ := set $variables "FRR_IPV6" $bgp.ipv6 }}
{{- $_ := set $variables "FRR_BFD" $bgp.bfd.enabled }}
{{- if $bgp.bfd.enabled }}
{{- $_ := set $variables "BFD_DETECT_MULTIPLIER" (int64 $bgp.bfd.detect_multiplier) }}
{{- $_ := set $variables "BFD_RECEIVE_INTERVAL" (int64 $bgp.bfd.receive_interval) }}
{{- $_ := set $variables "BFD_TRANSMIT_INTERVAL" (int64 $bgp.bfd.transmit_interval) }}
{{- end }}
{{- if $bgp.graceful_restart.enabled }}
{{- $_ := set $variables "FRR_GRACEFUL_RESTART" (int64 $bgp.graceful_restart.restart_seconds) }}
{{- $_ := set $variables "FRR_GRACEFUL_RESTART_STALE_TIME" (int64 $bgp.graceful_restart.stale_seconds) }}
{{- else }}
{{- $_ := set $variables "FRR_GRACEFUL_RESTART" 0 }}
{{- end }}
{{- $_ := set $variables "FRR_NO_OUTBOUND_FILTER" (not $bgp.outbound_filter) }}
{{- $_ := set $variables "BGP_LISTEN" $bgp.listen }}
{{- $_ := set $variables "FRR_ZEBRA_KEEP" (int64 .Values.conf.frr.zebra_keep_seconds) }}
{{- $_ := set $variables "FRR_OWNER" .Values.conf.frr.owner }}
{{- $_ := set $variables "FRR_VTY_GROUP" (int64 .Values.conf.frr.vty_group) }}
{{- $_ := set $variables "PREFLIGHT" $bgp.preflight }}
{{- if $bgp.password.secret_name }}
{{- $_ := set $variables "BGP_PASSWORD_FILE" "/etc/bgp-password/password" }}
{{- end }}
{{- if $bgp.extra_config }}
{{- $_ := set $variables "FRR_EXTRA_CONFIG" "/etc/ovn-bgp-agent/frr-extra.conf" }}
{{- end }}
{{- range $name, $value := $variables }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- with .Values.pod.env.init_frr_config }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
abstract: |
  Environment of the agent's container: the options of `obgp-runtime agent` and `obgp-runtime health`.
usage: |
  {{ include "ovn_bgp_agent.utils.env_agent" . | indent 12 }}
*/}}
{{- define "ovn_bgp_agent.utils.env_agent" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: FRR_VTY_GROUP
  value: {{ int64 .Values.conf.frr.vty_group | quote }}
- name: PREFLIGHT
  value: {{ .Values.bgp.preflight | quote }}
{{- with .Values.pod.env.ovn_bgp_agent }}
{{ toYaml . }}
{{- end }}
{{- end -}}
