{{/*
Whole documents: the image sync job, NetworkPolicies, the registry's Secret.
*/}}

{{- define "helm-toolkit.manifests.job_image_repo_sync" -}}
{{- $root := .envAll -}}
{{- $name := printf "%s-image-repo-sync" (.serviceName | replace "_" "-") }}
{{ tuple $root "image_repo_sync" $name | include "helm-toolkit.snippets.kubernetes_pod_rbac_serviceaccount" }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  labels:
{{ tuple $root .serviceName "image-repo-sync" | include "helm-toolkit.snippets.kubernetes_metadata_labels" | indent 4 }}
  annotations:
    helm.sh/hook-delete-policy: before-hook-creation
{{- with .jobAnnotations }}
{{ toYaml . | indent 4 }}
{{- end }}
spec:
  backoffLimit: 1000
  template:
    metadata:
      labels:
{{ tuple $root .serviceName "image-repo-sync" | include "helm-toolkit.snippets.kubernetes_metadata_labels" | indent 8 }}
    spec:
      serviceAccountName: {{ $name }}
      restartPolicy: OnFailure
{{ tuple $root "image_repo_sync" | include "helm-toolkit.snippets.kubernetes_image_pull_secrets" | indent 6 }}
      nodeSelector:
        {{ $root.Values.labels.job.node_selector_key }}: {{ $root.Values.labels.job.node_selector_value }}
      initContainers:
{{ tuple $root "image_repo_sync" list | include "helm-toolkit.snippets.kubernetes_entrypoint_init_container" | indent 8 }}
      containers:
        - name: image-repo-sync
{{ tuple $root "image_repo_sync" | include "helm-toolkit.snippets.image" | indent 10 }}
{{ tuple $root $root.Values.pod.resources.jobs.image_repo_sync | include "helm-toolkit.snippets.kubernetes_resources" | indent 10 }}
          env:
            - name: LOCAL_REPO
              value: "{{ tuple "local_image_registry" "node" $root | include "helm-toolkit.endpoints.hostname_short_endpoint_lookup" }}:{{ tuple "local_image_registry" "node" "registry" $root | include "helm-toolkit.endpoints.endpoint_port_lookup" }}"
            - name: IMAGE_SYNC_LIST
              value: {{ include "helm-toolkit.utils.image_sync_list" $root | quote }}
          command:
            - /bin/bash
            - -c
            - /tmp/image-repo-sync.sh
          volumeMounts:
            - name: pod-tmp
              mountPath: /tmp
            - name: bootstrap-sh
              mountPath: /tmp/image-repo-sync.sh
              subPath: image-repo-sync.sh
              readOnly: true
            - name: docker-socket
              mountPath: /var/run/docker.sock
      volumes:
        - name: pod-tmp
          emptyDir: {}
        - name: bootstrap-sh
          configMap:
            name: {{ .serviceName }}-bin
            defaultMode: 0555
        - name: docker-socket
          hostPath:
            path: /var/run/docker.sock
{{- end -}}

{{- define "helm-toolkit.manifests.kubernetes_network_policy" -}}
{{- $root := .envAll -}}
{{- $all := $root.Values.network_policy -}}
{{- $raw := list -}}
{{- range $key, $policy := $all -}}
{{- if hasKey $policy "spec" -}}
{{- $raw = append $raw $key -}}
{{- end -}}
{{- end -}}
{{- range $raw }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $root.Release.Name }}-{{ replace "_" "-" . }}-netpol
  namespace: {{ $root.Release.Namespace }}
spec:
{{ (index $all .).spec | toYaml | indent 2 }}
{{- end }}
{{- if not $raw }}
{{- $key := .key | default .label }}
{{- $policy := index $all $key | default dict }}
{{- $types := list }}
{{- range list "Egress" "Ingress" }}
{{- if or (has . ($policy.policyTypes | default list)) (index $policy (lower .)) }}
{{- $types = append $types . }}
{{- end }}
{{- end }}
{{- $egress := list }}
{{- range $root.Values.endpoints }}
{{- if and (kindIs "map" .) (or (hasKey . "namespace") (hasKey . "hosts")) }}
{{- $peer := dict }}
{{- if .namespace }}
{{- $peer = dict "namespaceSelector" (dict "matchLabels" (dict "name" .namespace)) }}
{{- else }}
{{- $host := .hosts.internal | default .hosts.default }}
{{- $peer = dict "podSelector" (dict "matchLabels" (dict "application" (splitList "-" $host | first))) }}
{{- end }}
{{- $rule := dict "to" (list $peer) }}
{{- $ports := "" }}
{{- range .port }}
{{- $protocol := .protocol | default "TCP" }}
{{- range $class, $port := omit . "protocol" }}
{{- if $port }}
{{- $ports = append ($ports | default list) (dict "port" $port "protocol" $protocol) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey . "port" }}
{{- $_ := set $rule "ports" ($ports | default nil) }}
{{- end }}
{{- $egress = append $egress $rule }}
{{- end }}
{{- end }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $key | replace "_" "-" }}-netpol
  namespace: {{ $root.Release.Namespace }}
spec:
{{- if $types }}
  policyTypes:
{{ toYaml $types | indent 4 }}
{{- end }}
  podSelector:
    matchLabels:
{{ .labels | default (dict .name $key) | toYaml | indent 6 }}
  egress:
{{ concat $egress ($policy.egress | default list) | toYaml | indent 4 }}
{{- with $policy.ingress }}
  ingress:
{{ toYaml . | indent 4 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "helm-toolkit.manifests.secret_registry" -}}
{{- $root := .envAll -}}
{{- $registry := tuple "oci_image_registry" "internal" $root | include "helm-toolkit.endpoints.endpoint_host_lookup" -}}
{{- if $root.Values.endpoints.oci_image_registry.port.registry.default -}}
{{- $registry = printf "%s:%s" $registry (tuple "oci_image_registry" "internal" "registry" $root | include "helm-toolkit.endpoints.endpoint_port_lookup") -}}
{{- end -}}
{{- $user := index $root.Values.endpoints.oci_image_registry.auth .registryUser -}}
{{- $auth := printf "%s:%s" $user.username $user.password | b64enc }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ index $root.Values.secrets.oci_image_registry .registryUser }}
  annotations:
{{ tuple "oci_image_registry" .registryUser $root | include "helm-toolkit.snippets.custom_secret_annotations" | indent 4 }}
type: kubernetes.io/dockerconfigjson
data:
  .dockerconfigjson: {{ printf "{\"auths\": {\"%s\": {\"auth\": \"%s\"}}}" $registry $auth | b64enc }}
{{- end -}}
