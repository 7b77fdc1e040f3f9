{{/*
Names and ports from `endpoints`. A class that has no value of its own has the default's.
*/}}

{{- define "helm-toolkit._endpoint" -}}
{{- index (index . 1).Values.endpoints (index . 0 | replace "-" "_") | toYaml -}}
{{- end -}}

{{- define "helm-toolkit._host" -}}
{{- $hosts := (tuple (index . 0) (index . 2) | include "helm-toolkit._endpoint" | fromYaml).hosts -}}
{{- $host := index $hosts (index . 1) | default $hosts.default -}}
{{- if kindIs "map" $host }}{{ $host.host }}{{ else }}{{ $host }}{{ end -}}
{{- end -}}

{{- define "helm-toolkit._is_address" -}}
{{- if regexMatch "[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+" . }}yes{{ end -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.hostname_short_endpoint_lookup" -}}
{{- $host := include "helm-toolkit._host" . -}}
{{- if include "helm-toolkit._is_address" $host }}{{ index . 0 }}{{ else }}{{ $host }}{{ end -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.hostname_namespaced_endpoint_lookup" -}}
{{- $root := index . 2 -}}
{{- $namespace := (tuple (index . 0) $root | include "helm-toolkit._endpoint" | fromYaml).namespace | default $root.Release.Namespace -}}
{{- include "helm-toolkit.endpoints.hostname_short_endpoint_lookup" . }}.{{ $namespace -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.hostname_fqdn_endpoint_lookup" -}}
{{- $root := index . 2 -}}
{{- $overrides := (tuple (index . 0) $root | include "helm-toolkit._endpoint" | fromYaml).host_fqdn_override -}}
{{- $override := index $overrides (index . 1) | default $overrides.default -}}
{{- if kindIs "map" $override -}}
{{- $override = $override.host -}}
{{- end -}}
{{- $override | default (printf "%s.svc.%s" (include "helm-toolkit.endpoints.hostname_namespaced_endpoint_lookup" .) $root.Values.endpoints.cluster_domain_suffix) -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.endpoint_host_lookup" -}}
{{- $host := include "helm-toolkit._host" . -}}
{{- if include "helm-toolkit._is_address" $host }}{{ $host }}{{ else }}{{ include "helm-toolkit.endpoints.hostname_fqdn_endpoint_lookup" . }}{{ end -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.endpoint_port_lookup" -}}
{{- $ports := index (tuple (index . 0) (index . 3) | include "helm-toolkit._endpoint" | fromYaml).port (index . 2) -}}
{{- index $ports (index . 1) | default $ports.default | int64 -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.host_and_port_endpoint_uri_lookup" -}}
{{- $host := tuple (index . 0) (index . 1) (index . 3) | include "helm-toolkit.endpoints.endpoint_host_lookup" -}}
{{- $port := include "helm-toolkit.endpoints.endpoint_port_lookup" . -}}
{{- $replicated := (tuple (index . 0) (index . 3) | include "helm-toolkit._endpoint" | fromYaml).statefulset -}}
{{- $hosts := list -}}
{{- if $replicated -}}
{{- range until (int $replicated.replicas) -}}
{{- $hosts = append $hosts (printf "%s-%d.%s:%s" $replicated.name . $host $port) -}}
{{- end -}}
{{- else -}}
{{- $hosts = list (printf "%s:%s" $host $port) -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{- define "helm-toolkit.endpoints.service_name_endpoint_with_namespace_lookup" -}}
{{- $root := index . 2 -}}
{{- $endpoint := tuple (index . 0) $root | include "helm-toolkit._endpoint" | fromYaml -}}
{{- $host := include "helm-toolkit._host" . -}}
{{- if include "helm-toolkit._is_address" $host -}}
{{- $host = dig "service" "name" (index . 0 | replace "-" "_") $endpoint -}}
{{- end -}}
{{- $endpoint.namespace | default $root.Release.Namespace }}:{{ $host -}}
{{- end -}}
