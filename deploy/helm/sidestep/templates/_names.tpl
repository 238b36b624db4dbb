{{- /* What objects are called, and their labels. */}}

{{- /* The labels by which pods are found; they never change. */}}
{{- define "sidestep.selector" -}}
app.kubernetes.io/name: sidestep
{{- end }}

{{- define "sidestep.labels" -}}
{{ include "sidestep.selector" . }}
app.kubernetes.io/component: service-proxy
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "sidestep.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "sidestep.config" -}}
server: {{ .Values.server | quote }}
config.yaml: {{ .Values.configuration | quote }}
{{- end }}

{{- /* Another name for another content, as kustomize's generator has it: a change rolls out node by node. An agent
whose file changed in place would end at once, on all nodes. */}}
{{- define "sidestep.configName" -}}
sidestep-{{ include "sidestep.config" . | sha256sum | trunc 10 }}
{{- end }}
