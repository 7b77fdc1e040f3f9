{{/*
Rendering of other templates, of values as oslo.config, of one DaemonSet for each label.
*/}}

{{- define "helm-toolkit.utils.template" -}}
{{- $root := index . 1 -}}
{{- include ($root.Template.Name | replace (base $root.Template.Name) (index . 0)) $root -}}
{{- end -}}

{{- define "helm-toolkit.utils.hash" -}}
{{- include "helm-toolkit.utils.template" . | sha256sum | quote -}}
{{- end -}}

{{- define "helm-toolkit.utils.joinListWithComma" -}}
{{- join "," . -}}
{{- end -}}

{{- define "helm-toolkit.utils.to_oslo_conf" -}}
{{- range $section, $options := . -}}
{{- if kindIs "map" $options -}}
[{{ $section }}]
{{ range $option, $value := $options -}}
{{- if kindIs "slice" $value -}}
{{ $option }} = {{ include "helm-toolkit.utils.joinListWithComma" $value }}
{{ else if and (kindIs "map" $value) (eq $value.type "multistring") -}}
{{- range $value.values -}}
{{ $option }} = {{ . }}
{{ end -}}
{{- else if and (kindIs "map" $value) (eq $value.type "csv") -}}
{{ $option }} = {{ include "helm-toolkit.utils.joinListWithComma" $value.values }}
{{ else if not (or (kindIs "invalid" $value) (kindIs "map" $value)) -}}
{{ $option }} = {{ $value }}
{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.utils.image_sync_list" -}}
{{- $first := true -}}
{{- range $key, $image := .Values.images.tags -}}
{{- if not $first }},{{ end -}}
{{- if not (has $key $.Values.images.local_registry.exclude) -}}
{{- $first = false -}}
{{- $image -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The real function keeps its state in the values, which are visible to no one else. */}}
{{- define "helm-toolkit.utils.daemonset_overrides_root" }}
{{- $root := index . 7 }}
{{- $prefix := printf "%s_%s" $root.Chart.Name (index . 0) }}
{{- $overrides := index ($root.Values.overrides | default dict) $prefix | default dict }}
{{- $labels := $overrides.labels | default dict }}
{{- $sets := list }}
{{- range $label, $override := $labels }}
{{- $expressions := list (dict "key" (split "::" $label)._0 "operator" "In" "values" (list (split "::" $label)._1)) }}
{{- range $other, $_ := omit $labels $label }}
{{- $expressions = append $expressions (dict "key" (split "::" $other)._0 "operator" "NotIn" "values" (list (split "::" $other)._1)) }}
{{- end }}
{{- $values := mergeOverwrite (omit ($root.Values | toYaml | fromYaml) "overrides") (deepCopy $override.values) }}
{{- $name := printf "%s-%s" $prefix ($expressions | quote | sha256sum | trunc 16) }}
{{- $sets = append $sets (dict "name" $name "values" $values "expressions" $expressions "label" $label) }}
{{- end }}
{{- if dig "overrides_default" true $overrides }}
{{- $expressions := list }}
{{- range $label, $_ := $labels }}
{{- $expressions = append $expressions (dict "key" (split "::" $label)._0 "operator" "NotIn" "values" (list (split "::" $label)._1)) }}
{{- end }}
{{- $sets = append $sets (dict "name" (printf "%s-default" $prefix) "values" ($root.Values | toYaml | fromYaml) "expressions" $expressions "label" "") }}
{{- end }}
{{- range $current := $sets }}
{{- $name := .name | replace "_" "-" }}
{{- $context := merge (dict "Values" .values) (omit $root "Values" "Files") }}
{{- $etc := list (printf "%s-etc" $name) $context | include (index $ 3) }}
{{- $bin := list (printf "%s-bin" $name) $context | include (index $ 5) }}
{{- $set := list (index $ 0) (index $ 4) (index $ 2) $context | include (index $ 1) | fromYaml }}
{{- $_ := set $set.metadata "name" $name }}
{{- $spec := $set.spec.template.spec }}
{{- range $spec.volumes }}
{{- if eq (dig "secret" "secretName" "" .) (index $ 4) }}
{{- $_ := set .secret "secretName" (printf "%s-etc" $name) }}
{{- end }}
{{- if eq (dig "configMap" "name" "" .) (index $ 6) }}
{{- $_ := set .configMap "name" (printf "%s-bin" $name) }}
{{- end }}
{{- end }}
{{- if .expressions }}
{{- $affinity := $spec.affinity | default dict }}
{{- $node := $affinity.nodeAffinity | default dict }}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict }}
{{- $terms := list }}
{{- range $required.nodeSelectorTerms | default (list (dict "matchExpressions" list)) }}
{{- if hasKey . "matchExpressions" }}
{{- $terms = append $terms (dict "matchExpressions" (concat $current.expressions .matchExpressions)) }}
{{- end }}
{{- end }}
{{- $_ := set $required "nodeSelectorTerms" $terms }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required }}
{{- $_ := set $affinity "nodeAffinity" $node }}
{{- $_ := set $spec "affinity" $affinity }}
{{- end }}
{{- $_ := set $set.spec.template.metadata.annotations "configmap-etc-hash" ($etc | quote | sha256sum) }}
{{- $_ := set $set.spec.template.metadata.annotations "configmap-bin-hash" ($bin | quote | sha256sum) }}
{{- with .label }}
{{- $_ := set $set.metadata.annotations "daemonset_override" . }}
{{- end }}
---
{{ $etc }}
---
{{ $bin }}
---
{{ toYaml $set }}
{{- end }}
{{- end }}
