{{/* The chart's name, or what replaces it. */}}
{{- define "watcher.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of every object; 53 characters leave room for what is appended. */}}
{{- define "watcher.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What a cluster-wide object is called: releases of the same name may be in several namespaces. */}}
{{- define "watcher.clusterWideName" -}}
{{- printf "%s-%s" .Release.Namespace (include "watcher.fullname" .) }}
{{- end }}

{{- define "watcher.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "watcher.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of all pods of the release. */}}
{{- define "watcher.releaseLabels" -}}
app.kubernetes.io/name: {{ include "watcher.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of the pods that watch: neither the migration's nor the test's. */}}
{{- define "watcher.selectorLabels" -}}
{{ include "watcher.releaseLabels" . }}
app.kubernetes.io/component: watcher
{{- end }}

{{- define "watcher.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "watcher.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* A hook runs before the release's own account is there, so the migration gets one of its own. */}}
{{- define "watcher.migrationAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- include "watcher.fullname" . }}-migrate
{{- else }}
{{- include "watcher.serviceAccountName" . }}
{{- end }}
{{- end }}

{{- define "watcher.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What every pod of the release shares. */}}
{{- define "watcher.podSpec" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
# A Service called `watcher` would set WATCHER_… variables, which are configuration.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end }}

{{/* What every container of the release shares. */}}
{{- define "watcher.container" -}}
image: {{ include "watcher.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{/* The watcher and its migration have the same variables. */}}
{{- define "watcher.env" -}}
env:
  {{- if eq .Values.store.type "postgresql" }}
  - name: DATABASE_URL
    valueFrom:
      secretKeyRef:
        name: {{ .Values.store.postgresql.existingSecret }}
        key: {{ .Values.store.postgresql.key }}
  - name: WATCHER_STORE__URL
    value: '{"env": "DATABASE_URL"}'
  {{- else }}
  - name: WATCHER_STORE__URL
    value: sqlite:////var/lib/watcher/watcher.db
  {{- end }}
  {{- range $name, $value := .Values.env }}
  - name: {{ $name }}
    {{- if kindIs "string" $value }}
    value: {{ $value | quote }}
    {{- else }}
    {{- toYaml $value | nindent 4 }}
    {{- end }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whether there may be several replicas: also where somebody else decides on how many. */}}
{{- define "watcher.several" -}}
{{- if kindIs "invalid" .Values.replicaCount }}
{{- if ne .Values.store.type "sqlite" }}true{{ end }}
{{- else if gt (int .Values.replicaCount) 1 }}true{{ end }}
{{- end }}

{{/* TCP ports of what is reached by URL, as far as the values tell: sinks, the dead-man ping, proxies. */}}
{{- define "watcher.urlPorts" -}}
{{- $env := .Values.env }}
{{- $urls := list (dig "dead_man" "url" "" .Values.config) }}
{{- range .Values.config.sinks }}
{{- $urls = concat $urls (list .url .api_url) (default list .urls) }}
{{- end }}
{{- range $name, $value := $env }}
{{- if has (upper $name) (list "HTTP_PROXY" "HTTPS_PROXY") }}
{{- $urls = append $urls $value }}
{{- end }}
{{- end }}
{{- range $urls }}
{{- $url := . }}
{{- if kindIs "map" $url }}
{{- $url = get $env (default "" $url.env) }}
{{- end }}
{{- if kindIs "string" $url }}
{{- $server := regexFind "^[a-z0-9]+://[^/?#]*" $url }}
{{- $port := regexFind ":[0-9]+$" $server | trimPrefix ":" }}
{{- if $port }} {{ $port }}{{ else if hasPrefix "http://" $server }} 80{{ else if hasPrefix "https://" $server }} 443{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The watcher's configuration: what is given, and the cluster where it is said in values of its own. */}}
{{- define "watcher.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $name := default "default" .Values.clusterName }}
{{- if not $config.clusters }}
{{- $_ := set $config "clusters" (list (dict "name" $name "namespaces" (default list .Values.namespaces))) }}
{{- else if or .Values.namespaces (ne $name "default") }}
{{- fail "config.clusters says names and namespaces itself: set either it, or clusterName and namespaces" }}
{{- end }}
{{- toYaml $config }}
{{- end }}
