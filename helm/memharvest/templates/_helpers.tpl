{{- define "memharvest.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "memharvest.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "memharvest.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "memharvest.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What a Deployment finds its pods by; never changes. Takes (list $ component). */}}
{{- define "memharvest.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "memharvest.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "memharvest.labels" -}}
{{- $root := index . 0 -}}
{{ include "memharvest.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: memharvest
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* name, namespace and labels of an object. Takes (list $ component). */}}
{{- define "memharvest.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "memharvest.fullname" $root }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "memharvest.labels" . | nindent 2 }}
{{- end }}

{{- define "memharvest.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.repository }}-{{ index . 1 }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
{{- end }}

{{- define "memharvest.tls" -}}
{{- if ne .Values.tls.mode "none" }}yes{{ end }}
{{- end }}

{{- define "memharvest.scheme" -}}
{{- if include "memharvest.tls" . }}https{{ else }}http{{ end }}
{{- end }}

{{- define "memharvest.registryUrl" -}}
{{ include "memharvest.scheme" . }}://{{ include "memharvest.fullname" . }}-registry.{{ .Release.Namespace }}.svc:7401
{{- end }}

{{- define "memharvest.predictorsAtMost" -}}
{{- if .Values.predictor.autoscaling.enabled }}{{ .Values.predictor.autoscaling.maxReplicas }}{{ else }}{{ .Values.predictor.replicas }}{{ end }}
{{- end }}

{{/* Every predictor that there may be: one whose name is not known to DNS does not run. */}}
{{- define "memharvest.predictorUrls" -}}
{{- $urls := list }}
{{- range $i := until (include "memharvest.predictorsAtMost" . | int) }}
{{- $name := printf "%s-predictor" (include "memharvest.fullname" $) }}
{{- $urls = append $urls (printf "%s://%s-%d.%s.%s.svc:7402" (include "memharvest.scheme" $) $name $i $name $.Release.Namespace) }}
{{- end }}
{{- join "," $urls }}
{{- end }}

{{/* Which Secret holds a service's certificate, or the authority. Takes (list $ name). */}}
{{- define "memharvest.tlsSecret" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.tls.mode "existing" }}
{{- required (printf "tls.existing.%s: name the Secret" (index . 1)) (index $root.Values.tls.existing (index . 1)) }}
{{- else }}
{{- include "memharvest.fullname" $root }}-{{ index . 1 }}-tls
{{- end }}
{{- end }}

{{/* Names under which a service is reached. Takes (list $ component). */}}
{{- define "memharvest.dnsNames" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" (include "memharvest.fullname" $root) (index . 1) -}}
{{- $space := $root.Release.Namespace -}}
{{- $names := list (printf "%s.%s.svc" $name $space) (printf "%s.%s" $name $space) $name -}}
{{- if eq (index . 1) "predictor" }}{{ $names = prepend $names (printf "*.%s.%s.svc" $name $space) }}{{ end -}}
{{- if eq (index . 1) "gateway" }}{{ $names = append $names "localhost" }}{{ end -}}
{{- join "," $names }}
{{- end }}

{{/* What every service is told. Takes (list $ component grpc-port). */}}
{{- define "memharvest.env" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: MEMHARVEST_ADVERTISE
  value: $(POD_IP):{{ index . 2 }}
- name: MEMHARVEST_LOG_FORMAT
  value: {{ $root.Values.logs.format }}
- name: MEMHARVEST_LOG_FILTER
  value: {{ $root.Values.logs.filter | quote }}
{{- with $root.Values.otlpEndpoint }}
- name: MEMHARVEST_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- if include "memharvest.tls" $root }}
- name: MEMHARVEST_MESH_CA
  value: /etc/memharvest/tls/ca.crt
- name: MEMHARVEST_MESH_CERT
  value: /etc/memharvest/tls/tls.crt
- name: MEMHARVEST_MESH_KEY
  value: /etc/memharvest/tls/tls.key
{{- if eq $component "gateway" }}
# People and programs outside the mesh meet the same certificate.
- name: MEMHARVEST_TLS_CERT
  value: /etc/memharvest/tls/tls.crt
- name: MEMHARVEST_TLS_KEY
  value: /etc/memharvest/tls/tls.key
{{- end }}
{{- end }}
{{- if $root.Values.insecure }}
- name: MEMHARVEST_INSECURE
  value: "true"
{{- end }}
{{- range $name, $value := (index $root.Values $component).env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "memharvest.tlsMount" -}}
{{- if include "memharvest.tls" . }}
- name: tls
  mountPath: /etc/memharvest/tls
  readOnly: true
{{- end }}
{{- end }}

{{/* A service's certificate, and the authority that all believe. */}}
{{- define "memharvest.tlsVolume" -}}
{{- $root := index . 0 -}}
{{- if include "memharvest.tls" $root }}
- name: tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "memharvest.tlsSecret" . }}
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
      - secret:
          name: {{ include "memharvest.tlsSecret" (list $root "authority") }}
          items: [{key: tls.crt, path: ca.crt}]
{{- end }}
{{- end }}

{{- define "memharvest.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "memharvest.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* Probes ask the admin port, which is plain and read-only. Takes the port. */}}
{{- define "memharvest.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{/* Where and how a pod is placed. Takes (list $ component). */}}
{{- define "memharvest.placement" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
serviceAccountName: {{ include "memharvest.fullname" $root }}{{ if has (index . 1) (list "collector") }}-collector{{ end }}
automountServiceAccountToken: false
# Variables about other Services are of no use here.
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "memharvest.podSecurity" . | nindent 2 }}
{{- end }}

{{/* Labels and annotations of a pod. Takes (list $ component). */}}
{{- define "memharvest.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $part := index $root.Values (index . 1) -}}
labels:
  {{- include "memharvest.labels" . | nindent 2 }}
  {{- with $part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $part.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Spread over nodes where there are several. Takes (list $ component). */}}
{{- define "memharvest.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "memharvest.selector" . | nindent 8 }}
{{- end }}

{{/* A peer: the pods of one part. */}}
{{- define "memharvest.peer" -}}
podSelector:
  matchLabels:
    {{- include "memharvest.selector" . | nindent 4 }}
{{- end }}
{{- define "memharvest.dns" -}}
# Names.
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}
{{- define "memharvest.adminIngress" -}}
{{- $root := index . 0 -}}
# Prometheus, and `helm test`.
- from:
    {{- with $root.Values.networkPolicy.prometheus }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    - {{- include "memharvest.peer" (list $root "test") | nindent 6 }}
  ports: [{port: admin, protocol: TCP}]
{{- end }}

{{/* Refuses what cannot work. */}}
{{- define "memharvest.check" -}}
{{- if and (eq .Values.tls.mode "none") (not .Values.insecure) }}
{{- fail "the services would refuse to start: choose tls.mode cert-manager, job or existing, or set insecure: true if your network protects them" }}
{{- end }}
{{- if and (ne .Values.tls.mode "none") .Values.collector.enabled (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail "collectors get their certificates by tokens that name their node, which takes Kubernetes 1.30; on older ones set tls.mode: none and insecure: true" }}
{{- end }}
{{- if and (eq .Values.tls.mode "cert-manager") (not .Values.tls.certManager.issuerRef.name) }}
{{- fail "tls.certManager.issuerRef.name: name the Issuer or ClusterIssuer that signs the mesh's authority" }}
{{- end }}
{{- if and (eq .Values.registry.database "sqlite") (gt (int .Values.registry.replicas) 1) }}
{{- fail "registry.replicas: SQLite is a file of one registry; set registry.database: postgres for several" }}
{{- end }}
{{- if and (eq .Values.registry.database "postgres") (not .Values.registry.postgres.secretName) }}
{{- fail "registry.postgres.secretName: name the Secret with the database's URL" }}
{{- end }}
{{- if and .Values.gateway.auth.oidc.issuer (not .Values.gateway.auth.oidc.audience) }}
{{- fail "gateway.auth.oidc.audience: a token for somebody else must not open this gateway; name its audience" }}
{{- end }}
{{- if not (or .Values.gateway.auth.tokens .Values.gateway.auth.oidc.issuer .Values.insecure) }}
{{- fail "the gateway would refuse to start: set gateway.auth.tokens or gateway.auth.oidc, or insecure: true if your network protects it" }}
{{- end }}
{{- if and .Values.gateway.ingress.enabled (not .Values.gateway.ingress.hosts) }}
{{- fail "gateway.ingress.hosts: name at least one host" }}
{{- end }}
{{- if and .Values.gateway.httpRoute.enabled (not .Values.gateway.httpRoute.parentRefs) }}
{{- fail "gateway.httpRoute.parentRefs: name the Gateway" }}
{{- end }}
{{- end }}
