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

{{/*
abstract: |
  What ServiceMonitor and PodMonitor have in common: path, interval, and the node's name as a label.
usage: |
  {{ include "ovn_bgp_agent.utils.monitor_endpoint" . | indent 6 }}
*/}}
{{- define "ovn_bgp_agent.utils.monitor_endpoint" -}}
{{- $prometheus := .Values.monitoring.prometheus -}}
path: {{ $prometheus.ovn_bgp_agent.path }}
interval: {{ $prometheus.monitor.interval }}
scrapeTimeout: {{ $prometheus.monitor.scrape_timeout }}
relabelings:
  - sourceLabels:
      - __meta_kubernetes_pod_node_name
    targetLabel: node
{{- end -}}
