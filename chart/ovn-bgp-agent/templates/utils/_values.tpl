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
  A list, or a string, as a string with commas.
usage: |
  {{ include "ovn_bgp_agent.utils.joined" .Values.bgp.peer_ip }}
*/}}
{{- define "ovn_bgp_agent.utils.joined" -}}
{{- if kindIs "slice" . -}}
{{- include "helm-toolkit.utils.joinListWithComma" . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/*
abstract: |
  An ASN as digits, whether it is a number or a string. Helm reads numbers as floating point, which prints 4.200049263e+09.
usage: |
  {{ include "ovn_bgp_agent.utils.asn" .Values.bgp.asn }}
*/}}
{{- define "ovn_bgp_agent.utils.asn" -}}
{{- if kindIs "string" . -}}
{{- . -}}
{{- else if not (kindIs "invalid" .) -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/*
abstract: |
  mapping.json of bgp.asn_mapping. The ASNs are strings, however they came.
usage: |
  {{ include "ovn_bgp_agent.utils.asn_mapping" .Values.bgp.asn_mapping }}
*/}}
{{- define "ovn_bgp_agent.utils.asn_mapping" -}}
{{- $mapping := dict -}}
{{- range $prefix, $asn := . -}}
{{- $_ := set $mapping $prefix (include "ovn_bgp_agent.utils.asn" $asn) -}}
{{- end -}}
{{- toPrettyJson $mapping -}}
{{- end -}}

{{/*
abstract: |
  Name of the ConfigMap with mapping.json.
usage: |
  {{ include "ovn_bgp_agent.utils.asn_mapping_name" . }}
*/}}
{{- define "ovn_bgp_agent.utils.asn_mapping_name" -}}
{{- .Values.bgp.asn_mapping_existing | default "ovn-bgp-agent-asn-mapping" -}}
{{- end -}}

{{/*
abstract: |
  An OVSDB connection from an endpoint: SCHEME:HOST:PORT, several of them for a statefulset.
usage: |
  {{ tuple "ovn_ovsdb_nb" . | include "ovn_bgp_agent.utils.ovsdb_connection" }}
*/}}
{{- define "ovn_bgp_agent.utils.ovsdb_connection" -}}
{{- $type := index . 0 -}}
{{- $envAll := index . 1 -}}
{{- $scheme := index $envAll.Values.endpoints $type "scheme" | default "tcp" -}}
{{- $connections := list -}}
{{- range $address := splitList "," (tuple $type "internal" "ovsdb" $envAll | include "helm-toolkit.endpoints.host_and_port_endpoint_uri_lookup" | trim) -}}
{{- $connections = append $connections (printf "%s:%s" $scheme $address) -}}
{{- end -}}
{{- include "helm-toolkit.utils.joinListWithComma" $connections -}}
{{- end -}}

{{/*
abstract: |
  ovn-bgp-agent.conf: conf.ovn_bgp_agent, with the connections to OVN. Whole numbers become integers, because to_oslo_conf prints
  numbers of seven digits and more as 4.200049263e+09.
usage: |
  {{ include "ovn_bgp_agent.utils.conf" . }}
*/}}
{{- define "ovn_bgp_agent.utils.conf" -}}
{{- $conf := dict -}}
{{- range $section, $options := .Values.conf.ovn_bgp_agent -}}
{{- $copy := dict -}}
{{- range $option, $value := ($options | default dict) -}}
{{- if and (kindIs "float64" $value) (eq $value (floor $value)) -}}
{{- $_ := set $copy $option (int64 $value) -}}
{{- else -}}
{{- $_ := set $copy $option $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $conf $section $copy -}}
{{- end -}}
{{- $ovn := $conf.ovn | default dict -}}
{{- $_ := set $conf "ovn" $ovn -}}
{{- range $option, $type := dict "ovn_nb_connection" "ovn_ovsdb_nb" "ovn_sb_connection" "ovn_ovsdb_sb" -}}
{{- if not (index $ovn $option) -}}
{{- $_ := set $ovn $option (tuple $type $ | include "ovn_bgp_agent.utils.ovsdb_connection") -}}
{{- end -}}
{{- end -}}
{{- if .Values.secrets.tls.ovn -}}
{{- range $database := list "nb" "sb" -}}
{{- range $suffix, $file := dict "private_key" "tls.key" "certificate" "tls.crt" "ca_cert" "ca.crt" -}}
{{- $option := printf "ovn_%s_%s" $database $suffix -}}
{{- if not (index $ovn $option) -}}
{{- $_ := set $ovn $option (printf "/etc/ovn/tls/%s" $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "helm-toolkit.utils.to_oslo_conf" $conf -}}
{{- end -}}

{{/*
abstract: |
  The PriorityClass of the pods: pod.priorityClassName, or the one that the chart creates.
usage: |
  {{ include "ovn_bgp_agent.utils.priority_class" . }}
*/}}
{{- define "ovn_bgp_agent.utils.priority_class" -}}
{{- $set := tuple "ovn_bgp_agent" . | include "helm-toolkit.snippets.kubernetes_pod_priority_class" -}}
{{- if $set -}}
{{- $set -}}
{{- else if .Values.manifests.priorityclass -}}
priorityClassName: {{ .Values.pod.priority_class.name }}
{{- end -}}
{{- end -}}
