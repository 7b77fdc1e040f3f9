{{/*
ServiceAccount with its Role, and the container that waits for the dependencies.
*/}}

{{/* The dependencies of a component, with those of the local registry if it is in use. Jobs whose manifest is off are left out. */}}
{{- define "helm-toolkit._dependencies" -}}
{{- $root := index . 0 -}}
{{- $dependencies := index $root.Values.dependencies.static (index . 1) | default dict | deepCopy -}}
{{- if and $root.Values.images.local_registry.active (ne (index . 1) "image_repo_sync") -}}
{{- range $kind, $wanted := $root.Values.dependencies.dynamic.common.local_image_registry -}}
{{- $_ := set $dependencies $kind (concat (index $dependencies $kind | default list) $wanted | uniq) -}}
{{- end -}}
{{- end -}}
{{- $jobs := list -}}
{{- range $dependencies.jobs -}}
{{- if not (and (kindIs "string" .) (contains "-" .) (not (index $root.Values.manifests (printf "job_%s" (splitList "-" . | rest | join "_")) | default true))) -}}
{{- $jobs = append $jobs . -}}
{{- end -}}
{{- end -}}
{{- if $jobs -}}
{{- $_ := set $dependencies "jobs" $jobs -}}
{{- end -}}
{{- toYaml $dependencies -}}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_pod_rbac_serviceaccount" -}}
{{- $root := index . 0 -}}
{{- $name := index . 2 -}}
{{- $own := $root.Release.Namespace -}}
{{- $namespaces := dict -}}
{{- $dependencies := tuple $root (index . 1) | include "helm-toolkit._dependencies" | fromYaml -}}
{{- range $kind, $resource := dict "jobs" "jobs" "daemonset" "daemonsets" "pod" "pods" "secret" "secrets" -}}
{{- if index $dependencies $kind -}}
{{- $_ := set $namespaces $own (prepend (index $namespaces $own | default list) $resource) -}}
{{- end -}}
{{- end -}}
{{- range $dependencies.services -}}
{{- $namespace := (index $root.Values.endpoints .service).namespace | default $own -}}
{{- $_ := set $namespaces $namespace (prepend (index $namespaces $namespace | default list) "services" | uniq) -}}
{{- end }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $own }}
{{- if dig "oci_image_registry" "auth" "enabled" false $root.Values.endpoints }}
imagePullSecrets:
  - name: {{ index $root.Values.secrets.oci_image_registry $root.Chart.Name }}
{{- end }}
{{- range $namespace, $resources := $namespaces }}
{{- $role := printf "%s-%s-%s" $root.Release.Name $own $name }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $role }}
  namespace: {{ $namespace }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $role }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $own }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $role }}
  namespace: {{ $namespace }}
rules:
  - apiGroups: ["", extensions, batch, apps, discovery.k8s.io]
    verbs: [get, list]
    resources:
{{- range $resources }}
{{- $more := index (dict "daemonsets" (list . "pods") "jobs" (list . "pods") "services" (list . "endpoints" "endpointslices")) . | default (list .) }}
{{ toYaml $more | indent 6 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "helm-toolkit.snippets.kubernetes_entrypoint_init_container" -}}
{{- $root := index . 0 -}}
{{- $dependencies := tuple $root (index . 1) | include "helm-toolkit._dependencies" | fromYaml -}}
{{- $services := list -}}
{{- range $dependencies.services -}}
{{- $services = append $services (tuple .service .endpoint $root | include "helm-toolkit.endpoints.service_name_endpoint_with_namespace_lookup") -}}
{{- end -}}
{{- $context := dict "runAsUser" 65534 "readOnlyRootFilesystem" true "allowPrivilegeEscalation" false }}
{{- $site := dig "security_context" "kubernetes_entrypoint" "container" "kubernetes_entrypoint" dict $root.Values.pod }}
- name: init
{{ tuple $root "dep_check" | include "helm-toolkit.snippets.image" | indent 2 }}
  securityContext:
{{ mergeOverwrite $context (deepCopy $site) | toYaml | indent 4 }}
  env:
    - name: POD_NAME
      valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
    - name: NAMESPACE
      valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
    - name: INTERFACE_NAME
      value: eth0
    - name: PATH
      value: /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/
    - name: DEPENDENCY_SERVICE
      value: {{ join "," $services | quote }}
{{- with $dependencies.jobs }}
{{- if kindIs "string" (first .) }}
    - name: DEPENDENCY_JOBS
      value: {{ join "," . | quote }}
{{- else }}
    - name: DEPENDENCY_JOBS_JSON
      value: {{ toJson . | quote }}
{{- end }}
{{- end }}
    - name: DEPENDENCY_DAEMONSET
      value: {{ join "," $dependencies.daemonset | quote }}
    - name: DEPENDENCY_CONTAINER
      value: {{ join "," $dependencies.container | quote }}
    - name: DEPENDENCY_POD_JSON
      value: {{ if $dependencies.pod }}{{ toJson $dependencies.pod | quote }}{{ else }}""{{ end }}
    - name: DEPENDENCY_CUSTOM_RESOURCE
      value: {{ if $dependencies.custom_resources }}{{ toJson $dependencies.custom_resources | quote }}{{ else }}""{{ end }}
  command:
    - kubernetes-entrypoint
  volumeMounts:
{{ index . 2 | toYaml | indent 4 }}
{{- end -}}
