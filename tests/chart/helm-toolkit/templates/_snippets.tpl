{{/*
Labels, annotations, contexts, images and probes. The names, arguments and values are those of helm-toolkit.
*/}}

{{- define "helm-toolkit.snippets.kubernetes_metadata_labels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict "release_group" ($root.Values.release_group | default $root.Release.Name) "application" (index . 1) "component" (index . 2) -}}
{{- $site := dig "labels" dict $root.Values.pod -}}
{{- if dig "include_app_kubernetes_io" true $site -}}
{{- $_ := set $labels "app.kubernetes.io/name" (index . 1) -}}
{{- $_ := set $labels "app.kubernetes.io/component" (index . 2) -}}
{{- $_ := set $labels "app.kubernetes.io/instance" $labels.release_group -}}
{{- end -}}
{{- range list (index . 2) "default" -}}
{{- $labels = merge $labels (dig . dict $site) -}}
{{- end -}}
{{- toYaml $labels -}}
{{- end -}}

{{- define "helm-toolkit.snippets.release_uuid" -}}
"openstackhelm.openstack.org/release_uuid": {{ (index . 0).Values.release_uuid | default "" | quote }}
{{- end -}}

{{- define "helm-toolkit.snippets._annotations" -}}
{{- with index . 0 | default (index . 1) -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.custom_pod_annotations" -}}
{{- $all := dig "pod" dict ((index . 1).Values.annotations | default dict) -}}
{{- list (dig (index . 0) dict $all) (dig "default" dict $all) | include "helm-toolkit.snippets._annotations" -}}
{{- end -}}

{{- define "helm-toolkit.snippets.custom_secret_annotations" -}}
{{- $all := dig "secret" dict ((index . 2).Values.annotations | default dict) -}}
{{- list (dig (index . 0) (index . 1 | replace "-" "_") dict $all) (dig "default" dict $all) | include "helm-toolkit.snippets._annotations" -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_mandatory_access_control_annotation" -}}
{{- $control := dig "mandatory_access_control" dict .envAll.Values.pod -}}
{{- if eq (dig "type" "" $control | toString) "apparmor" -}}
{{- $profiles := dig .podName dict $control -}}
{{- range $name := .containerNames -}}
{{- with dig $name "" $profiles }}
container.apparmor.security.beta.kubernetes.io/{{ $name }}: {{ . }}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_pod_security_context" -}}
securityContext:
{{- with dig "user" .application "uid" "" .envAll.Values.pod }}
  runAsUser: {{ . }}
{{- end }}
{{- with dig "security_context" .application "pod" dict .envAll.Values.pod }}
{{ toYaml . | indent 2 }}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_container_security_context" -}}
{{- with dig "security_context" .application "container" .container dict .envAll.Values.pod -}}
securityContext:
{{ toYaml . | indent 2 }}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images.tags (index . 1) -}}
{{- $registry := $root.Values.images.local_registry -}}
{{- if and $registry.active (not (has (index . 1) $registry.exclude)) -}}
{{- $host := tuple "local_image_registry" "node" $root | include "helm-toolkit.endpoints.hostname_short_endpoint_lookup" -}}
{{- $port := tuple "local_image_registry" "node" "registry" $root | include "helm-toolkit.endpoints.endpoint_port_lookup" -}}
{{- $image = printf "%s:%s/%s" $host $port $image -}}
{{- end -}}
image: {{ $image | quote }}
imagePullPolicy: {{ $root.Values.images.pull_policy }}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_image_pull_secrets" -}}
{{- $secrets := dig "image_pull_secrets" dict (index . 0).Values.pod -}}
{{- if $secrets }}
imagePullSecrets:
{{- range list (index . 1) "default" }}
{{- with dig . list $secrets }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_resources" -}}
{{- if (index . 0).Values.pod.resources.enabled -}}
resources:
{{ index . 1 | toYaml | indent 2 }}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_tolerations" -}}
tolerations:
{{ (index (index . 0).Values.pod.tolerations (index . 1)).tolerations | toYaml }}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_probe" -}}
{{- $options := index .envAll.Values.pod.probes .component .container .type -}}
{{- if $options.enabled -}}
{{- dict (printf "%sProbe" .type) (mergeOverwrite .probeTemplate ($options.params | default dict)) | toYaml -}}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_pod_priority_class" -}}
{{- with dig "priorityClassName" (index . 0 | replace "-" "_") "" (index . 1).Values.pod -}}
priorityClassName: {{ . }}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_pod_runtime_class" -}}
{{- with dig "runtimeClassName" (index . 0 | replace "-" "_") "" (index . 1).Values.pod -}}
runtimeClassName: {{ . }}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_upgrades_daemonset" -}}
{{- $all := (index . 0).Values.pod.lifecycle.upgrades.daemonsets -}}
{{- $strategy := $all.pod_replacement_strategy -}}
{{- with index $all (index . 1) -}}
{{- if .enabled -}}
minReadySeconds: {{ .min_ready_seconds }}
updateStrategy:
  type: {{ $strategy }}
{{- if eq $strategy "RollingUpdate" }}
  rollingUpdate:
    maxUnavailable: {{ .max_unavailable }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "helm-toolkit.snippets.prometheus_service_annotations" -}}
{{- $config := index . 0 -}}
{{- range $key := list "scrape" "scheme" "path" "port" -}}
{{- with dig $key "" $config }}
prometheus.io/{{ $key }}: {{ . | quote }}
{{- end -}}
{{- end -}}
{{- end -}}
