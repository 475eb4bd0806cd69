{{- define "gateway.name" -}}
{{ include "gateway.release" . }}-gateway
{{- end }}

{{- define "gateway.release" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* The name by which replicas find each other, within the 63 characters that a name of a service has. */ -}}
{{- define "gateway.replicas" -}}
{{ include "gateway.release" . | trunc 46 | trimSuffix "-" }}-gateway-replicas
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: echotune-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "gateway.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{- printf "%s/%s" .image.registry .image.repository -}}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- default (include "gateway.name" .) .Values.serviceAccount.name }}
{{- end }}

{{- /* Names by which clients reach it: those of its service, and those that are told. */ -}}
{{- define "gateway.hosts" -}}
{{- $name := include "gateway.name" . -}}
{{- $within := printf "%s.%s" $name .Release.Namespace -}}
{{- concat (list $name $within (printf "%s.svc" $within) (printf "%s.svc.cluster.local" $within)) .Values.gateway.hosts | toJson -}}
{{- end }}
